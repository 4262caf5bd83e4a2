//! Any bytes as a request of any kind: no panic, and what decodes canonically encodes to the same bytes.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use menagerie::proto::request::{Query, Write};
use menagerie::proto::{ConnectRequest, Decoder, OpCode, RequestHeader};

fuzz_target!(|input: &[u8]| {
    let frame = Bytes::copy_from_slice(input);
    let _ = ConnectRequest::decode(&mut Decoder::new(&frame));
    let mut decoder = Decoder::new(&frame);
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return };
    let Some(op) = OpCode::from_wire(header.op) else { return };
    let body = decoder.take_rest();
    check(&body, |decoder| Write::decode(op, decoder)?.ok(), Write::encode);
    check(&body, |decoder| Query::decode(op, decoder)?.ok(), Query::encode);
});

fn check<T>(
    body: &Bytes,
    decode: impl Fn(&mut Decoder<'_>) -> Option<T>,
    encode: impl Fn(&T, &mut BytesMut),
) {
    let mut decoder = Decoder::new(body);
    let Some(request) = decode(&mut decoder) else { return };
    let read = body.len() - decoder.remaining();
    if decoder.is_canonical() {
        let mut out = BytesMut::new();
        encode(&request, &mut out);
        assert_eq!(out, body[..read]);
    }
}
