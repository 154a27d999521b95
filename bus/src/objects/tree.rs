//! What a service has on the bus, whose it is, and who sees it: everybody what is their own or nobody's; services of
//! the mesh, root, and those whom polkit lets, all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use banger_schemas::action::VIEW_ALL;
use banger_schemas::error::{Error, Result};
use zbus::message::Header;
use zbus::names::{InterfaceName, OwnedUniqueName};
use zbus::object_server::Interface;
use zbus::{Connection, ObjectPath};

use super::listing::{Folder, Objects, Outline};
use super::owned::Owned;
use crate::Caller;
use crate::authorize::Authorizer;
use crate::caller::Callers;

/// Connections that are remembered to see everything.
const REMEMBERED: usize = 1024;

/// An object as others see it.
#[derive(Clone)]
pub(super) struct Entry {
    owner: Option<u32>,
    pub(super) faces: BTreeMap<InterfaceName<'static>, Arc<dyn Interface>>,
}

#[derive(Default)]
struct Shared {
    entries: BTreeMap<String, Entry>,
    /// Paths above owned objects, which list what is below them to who may see it.
    folders: HashSet<String>,
    /// A connection that was let see everything once goes on to see it, as with a descriptor.
    see_all: HashSet<OwnedUniqueName>,
}

/// The objects of one service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tree {
    connection: Connection,
    root: &'static str,
    callers: Callers,
    authorizer: Arc<dyn Authorizer>,
    // Never held over an await.
    shared: Arc<Mutex<Shared>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").finish_non_exhaustive()
    }
}

impl Tree {
    /// An object manager at `root`, and nothing else yet.
    pub(crate) async fn new(
        connection: Connection,
        root: &'static str,
        callers: Callers,
        authorizer: Arc<dyn Authorizer>,
    ) -> Result<Self> {
        let tree = Tree { connection, root, callers, authorizer, shared: Arc::default() };
        tree.connection.object_server().at(root, Objects { tree: tree.clone() }).await?;
        Ok(tree)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The path of the service itself.
    pub(super) fn root(&self) -> &'static str {
        self.root
    }

    /// Puts an interface of an object on the bus; without an owner it is everybody's.
    pub(crate) async fn publish<I: Interface>(&self, path: &str, owner: Option<u32>, face: I) -> Result<()> {
        let path = ObjectPath::try_from(path).map_err(Error::internal)?;
        let face = Arc::new(face);
        if owner.is_some() {
            self.hide_below(&path).await?;
        }
        self.with(|shared| {
            let entry = shared.entries.entry(path.to_string());
            let entry = entry.or_insert_with(|| Entry { owner, faces: BTreeMap::new() });
            entry.faces.insert(I::name(), face.clone())
        });
        let owned = Owned { tree: self.clone(), owner, face };
        match self.connection.object_server().at(path.clone(), owned).await? {
            None => Ok(()),
            Some(_) => Err(Error::internal(format!("{path} is on the bus already"))),
        }
    }

    /// Takes an interface of an object off the bus, and the object with its last.
    pub(crate) async fn retire<I: Interface>(&self, path: &str) -> Result<()> {
        let path = ObjectPath::try_from(path).map_err(Error::internal)?;
        self.with(|shared| {
            if let Some(entry) = shared.entries.get_mut(path.as_str()) {
                entry.faces.remove(&I::name());
            }
            shared.entries.retain(|_, entry| !entry.faces.is_empty());
        });
        self.connection.object_server().remove::<Owned<I>, _>(path).await?;
        Ok(())
    }

    /// Has the paths above list only what the caller may see: what zbus puts there lists everything.
    async fn hide_below(&self, path: &ObjectPath<'_>) -> Result<()> {
        let server = self.connection.object_server();
        for folder in above(path) {
            if self.with(|shared| !shared.folders.insert(folder.to_owned())) {
                continue;
            }
            server.at(folder, Folder).await?;
            server.remove_named(folder, Outline::name()).await?;
            server.at(folder, Outline { tree: self.clone(), path: folder.to_owned() }).await?;
        }
        Ok(())
    }

    /// Whether the sender of this message sees what belongs to `owner`. Without a question to anybody but the bus,
    /// since zbus reads properties with the whole tree locked.
    pub(super) async fn shows_at_once(&self, owner: Option<u32>, header: &Header<'_>) -> Result<bool> {
        let Some(owner) = owner else { return Ok(true) };
        let caller = self.callers.of(header).await?;
        Ok(caller.uid == owner || self.shows_all_at_once(&caller))
    }

    /// The same with polkit's word, if it has one to say without asking a person.
    pub(super) async fn shows(&self, owner: Option<u32>, header: &Header<'_>) -> Result<bool> {
        let Some(owner) = owner else { return Ok(true) };
        let caller = self.callers.of(header).await?;
        Ok(caller.uid == owner || self.shows_all(&caller).await)
    }

    fn shows_all_at_once(&self, caller: &Caller) -> bool {
        self.authorizer.lets_at_once(caller, VIEW_ALL) || self.with(|shared| shared.see_all.contains(&caller.name))
    }

    /// Whether this caller sees everybody's objects, from now on for as long as it is connected.
    pub(crate) async fn shows_all(&self, caller: &Caller) -> bool {
        if self.shows_all_at_once(caller) {
            return true;
        }
        let unasked = Caller { interactive: false, ..caller.clone() };
        let may = self.authorizer.check(&unasked, VIEW_ALL, &[]).await.is_ok();
        if may {
            self.show_all(caller);
        }
        may
    }

    /// Lets a caller see everybody's objects for as long as it is connected.
    pub(crate) fn show_all(&self, caller: &Caller) {
        self.with(|shared| {
            // Whoever is forgotten asks once more.
            if shared.see_all.len() >= REMEMBERED {
                shared.see_all.clear();
            }
            shared.see_all.insert(caller.name.clone())
        });
    }

    /// The objects below `path`, and that at it, which the sender of this message sees.
    pub(super) async fn seen(&self, path: &str, header: &Header<'_>) -> Result<BTreeMap<String, Entry>> {
        let caller = self.callers.of(header).await?;
        let mut entries = self.with(|shared| shared.entries.clone());
        entries.retain(|at, _| at == path || is_below(at, path));
        let foreign = |entry: &Entry| entry.owner.is_some_and(|owner| owner != caller.uid);
        if entries.values().any(foreign) && !self.shows_all(&caller).await {
            entries.retain(|_, entry| !foreign(entry));
        }
        Ok(entries)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        // Nothing panics with it locked; and if something did, the maps are whole.
        work(&mut self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// The paths that lead to a path, from the top.
fn above(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.map(|at| if at == 0 { "/" } else { &path[..at] })
}

/// The names right below a folder that lead to these paths.
pub(super) fn children<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> BTreeSet<&'a str> {
    let rest = |path: &'a String| path.strip_prefix(folder.trim_end_matches('/'))?.strip_prefix('/')?.split('/').next();
    paths.filter_map(rest).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lists_what_leads_to_the_objects_below_it() {
        let paths = ["/b/V", "/b/V/vm/one", "/b/V/vm/two", "/b/V/job/1", "/b/Vx"].map(str::to_owned);
        let names = |folder| children(paths.iter(), folder).into_iter().collect::<Vec<_>>();
        assert_eq!(names("/"), ["b"]);
        assert_eq!(names("/b"), ["V", "Vx"]);
        assert_eq!(names("/b/V"), ["job", "vm"]);
        assert_eq!(names("/b/V/vm"), ["one", "two"]);
        assert_eq!(names("/b/V/vm/one"), [""; 0]);
    }

    #[test]
    fn what_is_below_begins_with_the_folder_and_a_slash() {
        assert!(is_below("/b/V/vm/one", "/b/V") && is_below("/b", "/"));
        assert!(!is_below("/b/V", "/b/V") && !is_below("/b/Vx", "/b/V") && !is_below("/", "/"));
        assert_eq!(above("/b/V/vm/one").collect::<Vec<_>>(), ["/", "/b", "/b/V", "/b/V/vm"]);
    }
}
