//! Spark's binary VARIANT as JSON (<https://github.com/apache/parquet-format/blob/master/VariantEncoding.md>).
//!
//! The bytes come from data files, so nothing about them is taken for granted: every length is checked, nesting is bounded,
//! and what does not fit is an error, never a guess.

use crate::encode::{Malformed, binary, integer, string};
use crate::text;

/// Objects and arrays inside of one another.
const DEPTH_MAX: usize = 128;

/// The most that one variant is written to. A name may be used by any number of objects, so the text can be longer than its parts.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that are taken from the front.
struct Input<'a>(&'a [u8]);

/// The names of object fields.
struct Names<'a> {
    offset_size: usize,
    count: usize,
    offsets: &'a [u8],
    text: &'a [u8],
}

/// Writes a value under its metadata.
pub(crate) fn write(metadata: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut writer = Writer { names: Names::new(metadata)?, left: value.len(), end: out.len() + TEXT_BYTES_MAX };
    writer.value(value, out, 0)
}

/// Keeps account of what was written. Offsets may name any place, so that an array of arrays that all name the next one would be
/// written for ever: but a value's bytes are its own, and together values are not longer than the whole.
struct Writer<'a> {
    names: Names<'a>,
    /// Bytes of values that were not read yet.
    left: usize,
    /// How long the text may become.
    end: usize,
}

impl Writer<'_> {
    /// `input` is what follows the part of a value that was read.
    fn spend(&mut self, value: &[u8], input: &Input<'_>) -> Result<(), Malformed> {
        let read = value.len() - input.0.len();
        self.left = self.left.checked_sub(read).ok_or_else(|| "a variant holds a value more than once".to_owned())?;
        Ok(())
    }

    fn value(&mut self, value: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(format!("a variant is nested more than {DEPTH_MAX} deep"));
        }
        if out.len() > self.end {
            return Err(format!("a variant is longer than {TEXT_BYTES_MAX} bytes as JSON"));
        }
        let mut input = Input(value);
        let header = input.byte()?;
        let kind = header >> 2;
        match header & 0b11 {
            0 => {
                write_primitive(kind, &mut input, out)?;
                self.spend(value, &input)
            }
            1 => {
                string(out, input.text(usize::from(kind))?);
                self.spend(value, &input)
            }
            2 => {
                let offset_size = usize::from(kind & 0b11) + 1;
                let id_size = usize::from(kind >> 2 & 0b11) + 1;
                let count = input.number(if kind >> 4 & 1 == 1 { 4 } else { 1 })?;
                let ids = input.take(count.saturating_mul(id_size))?;
                let offsets = input.take(count.saturating_add(1).saturating_mul(offset_size))?;
                self.spend(value, &input)?;
                out.push(b'{');
                for index in 0..count {
                    if index > 0 {
                        out.push(b',');
                    }
                    string(out, self.names.get(number_at(ids, index, id_size)?)?);
                    out.push(b':');
                    // Fields are sorted by name and values need not be, so a value's end is not the next one's start; it does not
                    // matter, a value knows its own length.
                    self.value(input.from(number_at(offsets, index, offset_size)?)?, out, depth + 1)?;
                }
                out.push(b'}');
                Ok(())
            }
            _ => {
                let offset_size = usize::from(kind & 0b11) + 1;
                let count = input.number(if kind >> 2 & 1 == 1 { 4 } else { 1 })?;
                let offsets = input.take(count.saturating_add(1).saturating_mul(offset_size))?;
                self.spend(value, &input)?;
                out.push(b'[');
                for index in 0..count {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.value(input.from(number_at(offsets, index, offset_size)?)?, out, depth + 1)?;
                }
                out.push(b']');
                Ok(())
            }
        }
    }
}

fn write_primitive(kind: u8, input: &mut Input<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match kind {
        0 => out.extend_from_slice(b"null"),
        1 => out.extend_from_slice(b"true"),
        2 => out.extend_from_slice(b"false"),
        3 => integer(out, i8::from_le_bytes(input.array()?)),
        4 => integer(out, i16::from_le_bytes(input.array()?)),
        5 => integer(out, i32::from_le_bytes(input.array()?)),
        6 => integer(out, i64::from_le_bytes(input.array()?)),
        7 => text::write_float(out, f64::from_le_bytes(input.array()?)),
        8 => {
            let scale = input.byte()?;
            text::write_decimal(out, i32::from_le_bytes(input.array()?).into(), scale);
        }
        9 => {
            let scale = input.byte()?;
            text::write_decimal(out, i64::from_le_bytes(input.array()?).into(), scale);
        }
        10 => {
            let scale = input.byte()?;
            text::write_decimal(out, i128::from_le_bytes(input.array()?), scale);
        }
        11 => text::write_date(out, i32::from_le_bytes(input.array()?)),
        12 => text::write_timestamp(out, i64::from_le_bytes(input.array()?), true),
        13 => text::write_timestamp(out, i64::from_le_bytes(input.array()?), false),
        14 => text::write_float(out, f32::from_le_bytes(input.array()?)),
        15 => {
            let length = input.number(4)?;
            binary(out, input.take(length)?);
        }
        16 => {
            let length = input.number(4)?;
            string(out, input.text(length)?);
        }
        20 => string(out, &uuid::Uuid::from_bytes(input.array()?).to_string()),
        other => return Err(format!("a variant has a value of type {other}, which this version does not know")),
    }
    Ok(())
}

// === impl Names ===

impl<'a> Names<'a> {
    fn new(metadata: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Input(metadata);
        let header = input.byte()?;
        if header & 0b1111 != 1 {
            return Err(format!("a variant has format {}, this version reads format 1", header & 0b1111));
        }
        let offset_size = usize::from(header >> 6) + 1;
        let count = input.number(offset_size)?;
        let offsets = input.take(count.saturating_add(1).saturating_mul(offset_size))?;
        Ok(Self { offset_size, count, offsets, text: input.0 })
    }

    fn get(&self, id: usize) -> Result<&'a str, Malformed> {
        if id >= self.count {
            return Err(cut());
        }
        let start = number_at(self.offsets, id, self.offset_size)?;
        let end = number_at(self.offsets, id + 1, self.offset_size)?;
        self.text.get(start..end).and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(cut)
    }
}

// === impl Input ===

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or_else(cut)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| cut())
    }

    fn number(&mut self, size: usize) -> Result<usize, Malformed> {
        Ok(little_endian(self.take(size)?))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.take(length)?).map_err(|_| "a variant holds a text that is not UTF-8".to_owned())
    }

    fn from(&self, offset: usize) -> Result<&'a [u8], Malformed> {
        self.0.get(offset..).ok_or_else(cut)
    }
}

fn number_at(numbers: &[u8], index: usize, size: usize) -> Result<usize, Malformed> {
    numbers.get(index * size..(index + 1) * size).map(little_endian).ok_or_else(cut)
}

/// Four bytes at most.
fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

fn cut() -> Malformed {
    "a variant is cut short".to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(metadata: &[u8], value: &[u8]) -> Result<String, Malformed> {
        let mut out = Vec::new();
        write(metadata, value, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_object_with_an_array_is_written() {
        // {"a": [1, "x"], "b": null}
        let metadata = [0x01, 2, 0, 1, 2, b'a', b'b'];
        let array = [0b11, 2, 0, 2, 4, 3 << 2, 1, 1 << 2 | 1, b'x'];
        let mut value = vec![0b10, 2, 0, 1, 0, 9, 10];
        value.extend(array);
        value.push(0);
        assert_eq!(json(&metadata, &value).unwrap(), r#"{"a":[1,"x"],"b":null}"#);
    }

    #[test]
    fn values_that_name_one_another_again_and_again_are_refused() {
        // Arrays of two, each of which holds the next one twice: 2^60 nulls in 360 bytes.
        let mut value = [0b11, 2, 0, 0, 0].repeat(60);
        value.push(0);
        assert!(json(&[0x01, 0, 0], &value).unwrap_err().contains("more than once"));
        // A hundred times the longest name.
        let metadata =
            [&[0xc1][..], &1_u32.to_le_bytes(), &0_u32.to_le_bytes(), &1_000_000_u32.to_le_bytes(), &[b'n'; 1_000_000]]
                .concat();
        let mut object = vec![0b10, 100];
        object.extend([0; 100]);
        object.extend(0..=100);
        object.extend([0; 100]);
        assert!(json(&metadata, &object).unwrap_err().contains("longer than"));
    }

    #[test]
    fn another_format_and_a_cut_value_are_errors() {
        assert!(json(&[0x02, 0, 0], &[0]).unwrap_err().contains("format 2"));
        assert!(json(&[0x01, 0, 0], &[6 << 2, 1]).unwrap_err().contains("cut short"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(metadata: Vec<u8>, value: Vec<u8>) {
            json(&metadata, &value).ok();
        }
    }
}
