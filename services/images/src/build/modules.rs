//! Which kernel modules are needed, and in which order they can be loaded. A kernel package brings no such list:
//! it is made at installation, so it is read from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::elf;
use super::error::{BuildError, Result};

/// What a module says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    pub name: String,
    pub needs: Vec<String>,
}

impl ModuleInfo {
    /// Reads the module `bytes`.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Self> {
        let corrupt = |why: &str| BuildError::corrupt(format!("the kernel module {file}"), why);
        let info = elf::modinfo(bytes).ok_or_else(|| corrupt("it has no .modinfo"))?;
        let mut needs = Vec::new();
        for line in info.split(|byte| *byte == 0) {
            let Some(list) = line.strip_prefix(b"depends=") else { continue };
            let list = str::from_utf8(list).map_err(|_| corrupt("its dependencies are no text"))?;
            needs.extend(list.split(',').filter(|name| !name.is_empty()).map(module_name));
        }
        Ok(ModuleInfo { name: module_name(file), needs })
    }
}

/// The name of a module from its file name or path; in names, `-` and `_` are the same.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

/// `wanted` and everything they need, each after what it needs. What is built into the kernel is left out.
pub fn load_order(
    wanted: &[&str],
    modules: &BTreeMap<String, Vec<String>>,
    builtin: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let mut walk = Walk { modules, builtin, order: Vec::new(), path: Vec::new() };
    for name in wanted {
        walk.visit(name)?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    modules: &'a BTreeMap<String, Vec<String>>,
    builtin: &'a BTreeSet<String>,
    order: Vec<String>,
    path: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, name: &str) -> Result<()> {
        if self.builtin.contains(name) || self.order.iter().any(|done| done == name) {
            return Ok(());
        }
        if let Some(start) = self.path.iter().position(|open| *open == name) {
            let circle = self.path[start..].iter().copied().chain([name]).map(str::to_owned).collect();
            return Err(BuildError::ModuleCycle(circle));
        }
        let found = self.modules.get_key_value(name);
        let (name, needs) = found.ok_or_else(|| BuildError::MissingModule(name.to_owned()))?;
        self.path.push(name);
        for need in needs {
            self.visit(need)?;
        }
        self.path.pop();
        self.order.push(name.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        list.iter().map(|(name, needs)| ((*name).to_owned(), needs.iter().map(|n| (*n).to_owned()).collect())).collect()
    }

    #[test]
    fn each_module_comes_once_and_after_what_it_needs() {
        let modules = modules(&[
            ("virtio_ring", &[]),
            ("virtio", &["virtio_ring"]),
            ("virtio_blk", &["virtio_ring", "virtio"]),
            ("erofs", &["libcrc32c"]),
            ("libcrc32c", &[]),
            ("unwanted", &[]),
        ]);
        let order = load_order(&["virtio_blk", "erofs", "virtio", "ext4"], &modules, &BTreeSet::from(["ext4".into()]));
        assert_eq!(order.unwrap(), ["virtio_ring", "virtio", "virtio_blk", "libcrc32c", "erofs"]);
    }

    #[test]
    fn a_missing_module_is_named_even_when_only_another_needs_it() {
        let modules = modules(&[("a", &["b"])]);
        let error = load_order(&["a"], &modules, &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, BuildError::MissingModule(name) if name == "b"));
    }

    #[test]
    fn a_circle_is_shown_as_one() {
        let modules = modules(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
        let error = load_order(&["a"], &modules, &BTreeSet::new()).unwrap_err();
        assert!(error.to_string().ends_with("b -> c -> b"), "{error}");
        let own = load_order(&["x"], &BTreeMap::from([("x".to_owned(), vec!["x".to_owned()])]), &BTreeSet::new());
        assert!(matches!(own, Err(BuildError::ModuleCycle(_))));
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name("kernel/drivers/char/hw_random/virtio-rng.ko"), "virtio_rng");
        assert_eq!(module_name("overlay"), "overlay");
    }

    #[test]
    fn a_module_says_what_it_needs() {
        let read = |needs: &str| ModuleInfo::read("kernel/a-b.ko", &elf::tests::small_module(needs)).unwrap();
        assert_eq!(read("virtio,virtio-ring").needs, ["virtio", "virtio_ring"]);
        assert_eq!(read(""), ModuleInfo { name: "a_b".into(), needs: Vec::new() });
        let whole = elf::tests::small_module("virtio");
        for length in 0..whole.len() {
            assert!(ModuleInfo::read("a.ko", &whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn bytes_that_are_no_module_are_damaged() {
        assert!(matches!(ModuleInfo::read("x.ko", b"\x7fELF"), Err(BuildError::Corrupt { .. })));
        assert!(ModuleInfo::read("x.ko", &elf::tests::small_elf(4096)).is_err());
    }
}
