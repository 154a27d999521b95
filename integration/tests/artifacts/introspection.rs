//! The documents are what the live services say.

use crate::documents;
use crate::live::Live;

#[tokio::test]
async fn the_documents_are_what_the_services_say() {
    let live = Live::start().await;
    let said = documents::render(live.faces.iter().map(|(name, face)| (name.as_str(), face.xml.as_str())));
    if std::env::var_os("BLESS").is_some() {
        bless(&said);
    }
    let stored = documents::stored();
    assert_eq!(
        stored.keys().collect::<Vec<_>>(),
        said.keys().collect::<Vec<_>>(),
        "other files than services: 'make blessed' writes them"
    );
    for (file, text) in said {
        assert_eq!(stored[&file], text, "{file} is not what the service says: 'make blessed' writes it anew");
    }
}

fn bless(said: &std::collections::BTreeMap<String, String>) {
    let folder = documents::folder();
    std::fs::create_dir_all(&folder).unwrap();
    for file in documents::stored().into_keys().filter(|file| !said.contains_key(file)) {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    for (file, text) in said {
        std::fs::write(folder.join(file), text).unwrap();
    }
}

#[test]
fn every_method_and_signal_says_what_it_does() {
    for (file, text) in documents::stored() {
        let mut before = "";
        for line in text.lines() {
            let line = line.trim();
            let member = line.starts_with("<method ") || line.starts_with("<signal ");
            assert!(!member || before == "-->", "{file}: {line} has no comment");
            before = line;
        }
    }
}
