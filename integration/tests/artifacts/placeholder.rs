//! Values of any signature, that mean nothing.

use std::fs::File;
use std::os::fd::OwnedFd;

use zbus::Signature;
use zbus::wire::{Array, Dict, Fd, ObjectPath, Structure, StructureBuilder, Variant};

/// A value of this type. Containers have one element, so that what decodes them sees the element's type too.
pub(crate) fn value(signature: &Signature) -> Variant<'static> {
    match signature {
        Signature::Bool => false.into(),
        Signature::U8 => 0u8.into(),
        Signature::U16 => 0u16.into(),
        Signature::U32 => 0u32.into(),
        Signature::U64 => 0u64.into(),
        Signature::Str => "".into(),
        Signature::ObjectPath => ObjectPath::from_static_str_unchecked("/").into(),
        Signature::Variant => Variant::Variant(Box::new(0u32.into())),
        Signature::Fd => Fd::from(OwnedFd::from(File::open("/dev/null").unwrap())).into(),
        Signature::Array(element) => {
            let mut array = Array::new(element.signature());
            array.append(value(element.signature())).unwrap();
            array.into()
        }
        Signature::Dict { key, value: element } => {
            let mut dict = Dict::new(key.signature(), element.signature());
            dict.append(value(key.signature()), value(element.signature())).unwrap();
            dict.into()
        }
        Signature::Structure(fields) => body(fields.iter().map(value)).into(),
        other => panic!("no value of type {other} is known here: add one"),
    }
}

/// A message's body of these values, of which there is at least one.
pub(crate) fn body(values: impl Iterator<Item = Variant<'static>>) -> Structure<'static> {
    values.fold(StructureBuilder::new(), StructureBuilder::append_field).build().unwrap()
}
