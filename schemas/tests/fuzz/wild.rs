//! Bytes as an adversary would send them: a true message, damaged here and there; or nothing but noise.

use bolero::TypeGenerator;

/// How the bytes are made.
#[derive(Debug, Clone, TypeGenerator)]
pub(crate) struct Wild {
    /// Which of the samples; one more than there are: none.
    sample: u8,
    damage: Vec<Damage>,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Damage {
    Set(u8, u8),
    Insert(u8, u8),
    Remove(u8),
    Truncate(u8),
    Append(Vec<u8>),
    /// A length of bincode's, at its extremes.
    Length(u8, u64),
}

impl Wild {
    /// The bytes, of one of these samples or of none.
    pub(crate) fn bytes(&self, samples: &[Vec<u8>]) -> Vec<u8> {
        let choice = usize::from(self.sample) % (samples.len() + 1);
        let mut bytes = samples.get(choice).cloned().unwrap_or_default();
        for damage in &self.damage {
            damage.to(&mut bytes);
        }
        bytes
    }
}

impl Damage {
    fn to(&self, bytes: &mut Vec<u8>) {
        let place = |at: u8, room: usize| usize::from(at).checked_rem(room);
        let length = bytes.len();
        match self {
            Damage::Set(at, byte) => place(*at, length).into_iter().for_each(|i| bytes[i] = *byte),
            Damage::Insert(at, byte) => bytes.insert(place(*at, length + 1).unwrap_or(0), *byte),
            Damage::Remove(at) => drop(place(*at, length).map(|i| bytes.remove(i))),
            Damage::Truncate(at) => bytes.truncate(usize::from(*at)),
            Damage::Append(more) => bytes.extend(more),
            Damage::Length(at, value) => {
                let at = place(*at, length + 1).unwrap_or(0);
                let varint = [[253].as_slice(), &value.to_le_bytes()].concat();
                drop(bytes.splice(at..(at + 1).min(length), varint));
            }
        }
    }
}
