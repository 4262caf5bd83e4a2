//! Any bytes as an entry of the log: no panic, and what decodes encodes to an entry that decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use menagerie::state_machine::Batch;

fuzz_target!(|input: &[u8]| {
    let Ok(batch) = Batch::decode(&Bytes::copy_from_slice(input)) else { return };
    let again = Batch::encode(batch.stamp, &batch.commands);
    assert_eq!(Batch::decode(&again), Ok(batch));
});
