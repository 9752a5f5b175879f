//! The few encodings that our own binary formats are made of: the envelope and the values of the ledger.
//!
//! ```text
//! varint = unsigned LEB128: seven bits a byte, the lowest first, the top bit set on all but the last
//! signed = zigzag (0, -1, 1, -2, … as 0, 1, 2, 3, …), then varint
//! bytes  = varint length, then so many bytes
//! ```
//!
//! Readers take what they read off the front of a slice and answer `None` where it was cut; they never panic, whatever the bytes.

pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

pub(crate) fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    take_varint(rest).map(|number| (number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
}

pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (value, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(value)
}

pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Reads something that has to fill the whole value.
pub(crate) fn whole<'a, T>(value: &'a [u8], take: impl FnOnce(&mut &'a [u8]) -> Option<T>) -> Option<T> {
    let mut rest = value;
    let read = take(&mut rest)?;
    rest.is_empty().then_some(read)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_varint_is_leb128() {
        let bytes = |number| {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            out
        };
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [0x7f]);
        assert_eq!(bytes(128), [0x80, 1]);
        assert_eq!(bytes(u64::MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let ten = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(take_varint(&mut ten.as_slice()), None);
        assert_eq!(take_varint(&mut [0x80; 11].as_slice()), None);
    }

    proptest! {
        #[test]
        fn numbers_and_bytes_go_there_and_back(number: u64, signed: i64, value: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            put_signed(&mut out, signed);
            put_bytes(&mut out, &value);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(number));
            prop_assert_eq!(take_signed(&mut rest), Some(signed));
            prop_assert_eq!(take_bytes(&mut rest), Some(value.as_slice()));
            prop_assert!(rest.is_empty());
        }
    }
}
