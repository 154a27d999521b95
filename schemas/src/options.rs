//! `a{sv}` arguments: typed on the way in, unknown keys refused by name.

use std::collections::HashMap;

use zbus::wire::{OwnedVariant, Variant};

use crate::error::{Error, Kind, Result};

/// A dictionary as it arrives.
pub type Dict = HashMap<String, OwnedVariant>;

/// Options that every method takes: the W3C trace context of the caller.
pub const TRACEPARENT: &str = "traceparent";
/// Whose object this is; only a peer of the mesh may say so.
pub const OWNER: &str = "owner";

/// Takes typed values out of a dictionary until none is left.
#[derive(Debug)]
pub struct Options {
    left: Dict,
    traceparent: Option<String>,
}

impl Options {
    pub fn new(dict: Dict) -> Result<Self> {
        let mut options = Options { left: dict, traceparent: None };
        options.traceparent = options.take(TRACEPARENT)?;
        Ok(options)
    }

    /// The caller's trace context, if it has one.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The value of `key`, if it was given. A value of another type is an error.
    pub fn take<T>(&mut self, key: &str) -> Result<Option<T>>
    where
        T: TryFrom<OwnedVariant>,
    {
        match self.left.remove(key) {
            None => Ok(None),
            Some(value) => {
                let signature = value.value_signature().to_string();
                T::try_from(value)
                    .map(Some)
                    .map_err(|_| Error::invalid(format!("option '{key}' cannot be of type '{signature}'")))
            }
        }
    }

    /// The value of `key`, which must be given.
    pub fn require<T>(&mut self, key: &str) -> Result<T>
    where
        T: TryFrom<OwnedVariant>,
    {
        self.take(key)?.ok_or_else(|| Error::invalid(format!("option '{key}' is missing")))
    }

    /// What was not taken, for somebody else to take or refuse.
    pub fn rest(self) -> Dict {
        self.left
    }

    /// Refuses whatever was not taken.
    pub fn finish(self) -> Result<()> {
        let mut unknown: Vec<String> = self.left.into_keys().collect();
        unknown.sort();
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(Error::new(Kind::UnknownOption, format!("unknown option: {}", unknown.join(", "))))
        }
    }
}

/// Builds a dictionary on the way out; absent values leave no key.
#[derive(Debug, Default)]
pub struct DictBuilder(Dict);

impl DictBuilder {
    #[must_use]
    pub fn set<'v, V>(mut self, key: &str, value: V) -> Self
    where
        V: Into<Variant<'v>>,
    {
        // Only a descriptor that cannot be duplicated fails to become owned, and none is put in a dictionary.
        if let Ok(value) = value.into().try_to_owned() {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    #[must_use]
    pub fn set_some<'v, V>(self, key: &str, value: Option<V>) -> Self
    where
        V: Into<Variant<'v>>,
    {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    pub fn build(self) -> Dict {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_named() {
        let dict = DictBuilder::default().set("b", 1u32).set("a", "x").set("known", true).build();
        let mut options = Options::new(dict).unwrap();
        assert_eq!(options.take::<bool>("known").unwrap(), Some(true));
        let error = options.finish().unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::UnknownOption, "unknown option: a, b"));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let mut options = Options::new(DictBuilder::default().set("memory", "lots").build()).unwrap();
        let error = options.take::<u32>("memory").unwrap_err();
        assert_eq!(error.message, "option 'memory' cannot be of type 's'");
    }
}
