//! Rewritten blocks against an independent decoder, and which authorities count as malformed.

use loona_hpack::Decoder;
use loona_hpack::encoder::encode_integer_into;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn string(text: &[u8], out: &mut Vec<u8>) {
    encode_integer_into(text.len(), 7, 0, out).unwrap();
    out.extend_from_slice(text);
}

fn huffman(coded: &[u8], out: &mut Vec<u8>) {
    encode_integer_into(coded.len(), 7, 0x80, out).unwrap();
    out.extend_from_slice(coded);
}

/// `:authority` as grpc-go sends it: name from the static table, added to the dynamic one.
fn authority(value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x41];
    string(value, &mut block);
    block
}

fn decode(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    Decoder::new().decode(block).unwrap()
}

#[test]
fn the_huffman_form_of_the_name_is_right() {
    let (length, coded) = NAME_HUFFMAN.split_first().unwrap();
    assert_eq!(usize::from(length & 0x7f), coded.len());
    assert_eq!(HuffmanDecoder::new().decode(coded).unwrap(), b":authority");
}

#[test]
fn authorities_that_old_clients_send_are_malformed() {
    for (value, malformed) in [
        (&b"localhost"[..], false),
        (b"localhost:80", false),
        (b"user@localhost", false),
        (b"[::1]:5000", false),
        (b"/run/x.sock", true),
        (b"%2Frun%2Fx.sock", true),
        (b"unix:/run/x", true),
        (b"", true),
        (b"a b", true),
        (b"\xff", true),
    ] {
        let mut out = Vec::new();
        let shown = String::from_utf8_lossy(value);
        let result = Transcoder::default().block(&authority(value), &mut out);
        assert_eq!(result, Ok(malformed), "{shown}");
        assert_eq!(decode(&out), [(b":authority".into(), b"localhost".into())]);
    }
    // The static table's entry, which has an empty value.
    assert_eq!(
        Transcoder::default().block(&[0x81], &mut Vec::new()),
        Ok(true)
    );
    // Huffman-coded: www.example.com (RFC 7541, C.4.1).
    let mut block = vec![0x01];
    huffman(
        b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        &mut block,
    );
    assert_eq!(
        Transcoder::default().block(&block, &mut Vec::new()),
        Ok(false)
    );
}

#[test]
fn an_indexed_authority_is_recognised_in_later_blocks() {
    let mut transcoder = Transcoder::default();
    let mut out = Vec::new();
    assert_eq!(
        transcoder.block(&authority(b"/run/x.sock"), &mut out),
        Ok(true)
    );
    out.clear();
    assert_eq!(transcoder.block(&[0x83, 0xbe], &mut out), Ok(true));
    let [method, authority] = &decode(&out)[..] else {
        panic!("{out:?}");
    };
    assert_eq!(method.1, b"POST");
    assert_eq!(authority.1, b"localhost");
    // Its name alone, with another value.
    let mut block = vec![0x0f, 62 - 15];
    string(b"good", &mut block);
    assert_eq!(transcoder.block(&block, &mut Vec::new()), Ok(false));
}

#[test]
fn a_block_without_authority_is_fine() {
    let mut out = Vec::new();
    let block = [0x83, 0x86, 0x84];
    assert_eq!(Transcoder::default().block(&block, &mut out), Ok(false));
    assert_eq!(out, block);
}

#[test]
fn secrets_that_must_not_be_indexed_stay_so() {
    let mut block = vec![0x10];
    string(b"x-token", &mut block);
    string(b"secret", &mut block);
    let mut out = Vec::new();
    Transcoder::default().block(&block, &mut out).unwrap();
    assert_eq!(out, block);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for block in [
        &[0x80][..],                                 // index 0
        &[0xbe],                                     // an entry that is not there
        &[0x7f, 0x00, 0x01],                         // a name that is not there
        &[0x40, 0x05, b'a'],                         // a string that is cut off
        &[0x40],                                     // nothing after it
        &[0x41, 0x81, 0x00],                         // Huffman padding that is not all ones
        &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], // an integer without end
        &[0x3f, 0xe2, 0x1f],                         // a table of 4097 bytes
    ] {
        assert_eq!(
            Transcoder::default().block(block, &mut Vec::new()),
            Err(Unreadable),
            "{block:?}"
        );
    }
}

#[test]
fn a_block_that_unfolds_without_bound_is_refused() {
    let mut block = vec![0x40];
    string(b"x", &mut block);
    string(&[b'v'; 4000], &mut block);
    block.resize(block.len() + 4096, 0xbe);
    let mut out = Vec::new();
    assert_eq!(
        Transcoder::default().block(&block, &mut out),
        Err(Unreadable)
    );
    assert!(out.len() < 2 * MAX_REWRITTEN);
}

/// How a field is to be encoded.
#[derive(Debug, Clone)]
enum Op {
    Static(usize),
    /// Of the entries that are in the table then, by its position among them.
    Dynamic(prop::sample::Index),
    /// First byte's pattern and prefix, name, value.
    Literal(Indexing, LiteralName, Vec<u8>),
    SizeUpdate(usize),
}

#[derive(Debug, Clone)]
enum LiteralName {
    Static(usize),
    Dynamic(prop::sample::Index),
    New(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
enum Indexing {
    With,
    Without,
    Never,
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        Just(b"/run/x.sock".to_vec()),
        Just(b"localhost".to_vec()),
        vec(any::<u8>(), 0..60),
        vec(any::<u8>(), 1000..1500),
    ];
    let name = prop_oneof![
        (1usize..=61).prop_map(LiteralName::Static),
        Just(LiteralName::Static(1)),
        any::<prop::sample::Index>().prop_map(LiteralName::Dynamic),
        "[a-z-]{1,12}".prop_map(|name| LiteralName::New(name.into_bytes())),
        Just(LiteralName::New(b":authority".to_vec())),
    ];
    let indexing = prop_oneof![
        3 => Just(Indexing::With),
        1 => Just(Indexing::Without),
        1 => Just(Indexing::Never),
    ];
    prop_oneof![
        2 => (1usize..=61).prop_map(Op::Static),
        3 => any::<prop::sample::Index>().prop_map(Op::Dynamic),
        4 => (indexing, name, value).prop_map(|(i, n, v)| Op::Literal(i, n, v)),
        1 => (0usize..=4096).prop_map(Op::SizeUpdate),
    ]
}

/// The sizes of the dynamic table's entries, newest first: a model, to know which indices exist.
#[derive(Default)]
struct Sizes(Vec<(Vec<u8>, usize)>, Option<usize>);

impl Sizes {
    fn evict(&mut self) {
        let max = self.1.unwrap_or(TABLE_SIZE);
        while self.0.iter().map(|(_, size)| size).sum::<usize>() > max {
            self.0.pop();
        }
    }

    fn pick(&self, index: &prop::sample::Index) -> Option<usize> {
        (!self.0.is_empty()).then(|| index.index(self.0.len()))
    }
}

fn encode(ops: &[Op], sizes: &mut Sizes) -> Vec<u8> {
    let mut out = Vec::new();
    for op in ops {
        match op {
            Op::Static(index) => encode_integer_into(*index, 7, 0x80, &mut out).unwrap(),
            Op::Dynamic(index) => {
                if let Some(at) = sizes.pick(index) {
                    encode_integer_into(62 + at, 7, 0x80, &mut out).unwrap();
                }
            }
            Op::SizeUpdate(size) => {
                encode_integer_into(*size, 5, 0x20, &mut out).unwrap();
                sizes.1 = Some(*size);
                sizes.evict();
                out.push(0x82); // A block may not end with the update.
            }
            Op::Literal(indexing, name, value) => {
                let (pattern, prefix) = match indexing {
                    Indexing::With => (0x40, 6),
                    Indexing::Without => (0x00, 4),
                    Indexing::Never => (0x10, 4),
                };
                let fallback = LiteralName::New(b"x".to_vec());
                let dynamic = match name {
                    LiteralName::Dynamic(index) => sizes.pick(index),
                    _ => None,
                };
                let name = match (name, dynamic) {
                    (LiteralName::Dynamic(_), None) => &fallback,
                    _ => name,
                };
                let bytes = match name {
                    LiteralName::Static(index) => {
                        encode_integer_into(*index, prefix, pattern, &mut out).unwrap();
                        decode(&[0x80 | *index as u8]).remove(0).0
                    }
                    LiteralName::Dynamic(_) => {
                        let at = dynamic.unwrap();
                        encode_integer_into(62 + at, prefix, pattern, &mut out).unwrap();
                        sizes.0[at].0.clone()
                    }
                    LiteralName::New(name) => {
                        out.push(pattern);
                        string(name, &mut out);
                        name.clone()
                    }
                };
                string(value, &mut out);
                if let Indexing::With = indexing {
                    let size = bytes.len() + value.len() + 32;
                    sizes.0.insert(0, (bytes, size));
                    sizes.evict();
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Each rewritten block, read by a decoder that knows no earlier one, has the fields of the
    /// original read by a decoder that knows them all.
    #[test]
    fn rewritten_blocks_say_the_same(blocks in vec(vec(op(), 0..12), 1..20)) {
        let mut transcoder = Transcoder::default();
        let mut decoder = Decoder::new();
        let mut sizes = Sizes::default();
        for ops in &blocks {
            let block = encode(ops, &mut sizes);
            let mut expected = decoder.decode(&block).unwrap();
            let malformed = expected.iter().any(|(name, value)| {
                name == b":authority" && Authority::try_from(&value[..]).is_err()
            });
            for (name, value) in &mut expected {
                if name == b":authority" {
                    *value = b"localhost".to_vec();
                }
            }
            let mut out = Vec::new();
            prop_assert_eq!(transcoder.block(&block, &mut out), Ok(malformed));
            prop_assert_eq!(decode(&out), expected);
        }
    }

    #[test]
    fn garbage_never_panics(blocks in vec(vec(any::<u8>(), 0..80), 1..5)) {
        let mut transcoder = Transcoder::default();
        for block in &blocks {
            if transcoder.block(block, &mut Vec::new()).is_err() {
                break;
            }
        }
    }
}
