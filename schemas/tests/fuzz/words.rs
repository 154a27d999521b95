//! Words that people type: what is taken reads the same when it is written out.

use std::fmt::Display;
use std::str::FromStr;

use banger_schemas::size::Mib;
use banger_schemas::{ImageName, VmId, VmName};
use bolero::check;

fn same_again<T: FromStr + Display>(text: &str) {
    if let Ok(word) = text.parse::<T>() {
        assert_eq!(word.to_string(), text);
    }
}

#[test]
fn names_ids_and_sizes() {
    // Half of it from the letters that names are made of, or hardly any would be taken.
    check!().with_type::<(String, Vec<u8>)>().for_each(|(text, letters)| {
        const LETTERS: &[u8; 16] = b"ab-019._zZ/\n GMi";
        let likely: String = letters.iter().map(|l| char::from(LETTERS[usize::from(l % 16)])).collect();
        for text in [text, &likely] {
            same_again::<VmName>(text);
            same_again::<ImageName>(text);
            same_again::<VmId>(text);
            if let Ok(Mib(mib)) = text.parse::<Mib>() {
                assert_eq!(format!("{mib}M").parse(), Ok(Mib(mib)));
            }
        }
    });
}
