//! Any bytes as a record of the ledger: the audit reads the whole topic, and must not stop at one that somebody else wrote.

use proptest::prelude::*;
use tailwater_fuzz::{Target, effect, generated};

use super::*;

/// Between the key and the value of an input; a key is JSON, which has no such byte.
const BETWEEN: u8 = 0;

const TOKENS: &[&str] = &[
    r#"["resolve","#,
    r#"["route","#,
    r#"["send","#,
    r#"["operator","#,
    r#""klaviyo""#,
    r#""""#,
    ",0",
    ",-1",
    "]",
    "\0\x01",
    r#""t.ingest.ltv""#,
    r#""00000000000000a1"]"#,
    "\x05\0\x01\x01",
    "\x06\x0ddecode_failed\x01\x01",
    "\x01",
];

prop_compose! {
    fn records()(
        stage in prop::sample::select(vec![Stage::Resolve, Stage::Route, Stage::Send, Stage::Operator]),
        destination in "[a-z]{0,8}",
        topic in "\\PC{0,12}",
        numbers in (0..=i32::MAX, 0..=i32::MAX, 0_i64..1 << 53, any::<u32>(), any::<u64>()),
        entries in prop::collection::vec((0_usize..7, "[a-z_]{0,10}", prop::collection::vec(0..BLOCK, 0..20)), 0..5),
    ) -> Vec<u8> {
        let (output_partition, partition, block, round, segment) = numbers;
        let mut all = Entries::new();
        for (end, reason, offsets) in entries {
            let bitmap = all.entry((End::ALL[end], reason)).or_default();
            for offset in offsets {
                bitmap.set(offset);
            }
        }
        let key = Key { stage, destination, output_partition, topic, partition, block, round, segment };
        [key.encode().as_slice(), &[BETWEEN], &encode_entries(&all)].concat()
    }
}

#[test]
fn ledger() {
    let mut records = generated(records());
    let target = Target { name: "ledger", tokens: TOKENS, bytes_max: 2_048 };
    target.run(Some(&mut records), |input| {
        let cut = input.iter().position(|byte| *byte == BETWEEN).unwrap_or(input.len());
        let (key, value) = (&input[..cut], input.get(cut + 1..).unwrap_or_default());
        let key = Key::decode(key).inspect(|key| {
            let written = key.encode();
            assert_eq!(Key::decode(&written).as_ref(), Ok(key));
        });
        let entries = decode_entries(value).inspect(|entries| {
            assert!(entries.len() * 3 < value.len().max(1), "each takes three bytes");
            let written = encode_entries(entries);
            assert_eq!(decode_entries(&written).as_ref(), Ok(entries));
        });
        if let (Ok(key), Ok(entries)) = (&key, &entries) {
            for bitmap in entries.values() {
                let offsets: Vec<i64> = bitmap.offsets(key.block).collect();
                assert_eq!(offsets.len() as u64, bitmap.count());
                assert!(offsets.iter().all(|offset| offset.div_euclid(BLOCK) == key.block), "{offsets:?}");
            }
        }
        effect((
            key.map(|key| (key.stage, key.output_partition < 0, key.block < 0)),
            entries.map(|entries| entries.len().min(8)),
        ))
    });
}
