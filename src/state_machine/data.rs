//! A znode's data as it stands in the znode: null, here, or away, which is on the disk alone.

use super::value::Value;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// 16 bytes. How long the data is, is known wherever it is.
#[derive(Debug, Default)]
pub(super) struct Data {
    value: Value,
    length: u32,
    form: Form,
    /// Since whoever lets values go last came by. Written by readers, who share the state.
    was_read: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// Which is not empty.
    #[default]
    Null,
    Here,
    Away,
}

impl From<Option<Value>> for Data {
    fn from(value: Option<Value>) -> Data {
        let Some(value) = value else { return Data::default() };
        Data {
            length: u32::try_from(value.len()).expect("a request is shorter than 2 GiB, so data is"),
            value,
            form: Form::Here,
            was_read: AtomicBool::new(false),
        }
    }
}

impl Data {
    /// Its bytes; `None` is null. Whoever asks has seen to it that they are here.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        assert_ne!(
            self.form,
            Form::Away,
            "data that is away is brought before it is looked at"
        );
        (self.form == Form::Here).then_some(&*self.value)
    }

    /// The same, to be kept; outside: `None` if it is away.
    pub(super) fn shared(&self) -> Option<Option<Value>> {
        match self.form {
            Form::Null => Some(None),
            Form::Here => Some(Some(self.value.clone())),
            Form::Away => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    pub(super) fn is_away(&self) -> bool {
        self.form == Form::Away
    }

    /// What it takes in memory besides the znode, bytes: the counter of the shared allocation, its length, and what the
    /// allocator adds and rounds up.
    pub(super) fn resident_bytes(&self) -> u64 {
        if self.value.is_empty() {
            0
        } else {
            (self.value.len() as u64 + 24).next_multiple_of(16)
        }
    }

    /// It was read: it stays in memory for another while.
    pub(super) fn note_read(&self) {
        if !self.was_read.load(Relaxed) {
            self.was_read.store(true, Relaxed);
        }
    }

    /// Whether it was read since this was last asked.
    pub(super) fn take_was_read(&mut self) -> bool {
        std::mem::take(self.was_read.get_mut())
    }

    /// Lets the bytes go, which are given out: freeing them may take a while.
    pub(super) fn let_go(&mut self) -> Value {
        assert_eq!(self.form, Form::Here, "only what is here can go");
        self.form = Form::Away;
        std::mem::take(&mut self.value)
    }

    /// Takes them back, freshly read.
    pub(super) fn put_back(&mut self, value: Value) {
        assert_eq!(
            (self.form, self.len()),
            (Form::Away, value.len()),
            "what comes back is what went"
        );
        *self = Data::from(Some(value));
        self.note_read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_and_comes_back_and_is_as_long_as_before() {
        assert_eq!(size_of::<Data>(), 16);
        let mut data = Data::from(Some(Value::from(&b"some"[..])));
        assert_eq!((data.len(), data.bytes()), (4, Some(&b"some"[..])));
        assert!(data.resident_bytes() >= 4 && !data.take_was_read());
        let value = data.let_go();
        assert_eq!(
            (data.len(), data.is_away(), data.resident_bytes(), data.shared()),
            (4, true, 0, None)
        );
        data.put_back(value);
        assert_eq!(data.bytes(), Some(&b"some"[..]));
        assert!(data.take_was_read() && !data.take_was_read());
    }

    #[test]
    fn null_is_not_empty() {
        let (null, empty) = (Data::from(None), Data::from(Some(Value::default())));
        assert_eq!((null.bytes(), null.shared()), (None, Some(None)));
        assert_eq!((empty.bytes(), empty.len()), (Some(&b""[..]), 0));
    }
}
