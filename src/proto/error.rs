//! The error codes that a reply can carry (Apache's `KeeperException.Code`).
//!
//! Clients crash on a code they do not know, so this enum is the only source of codes.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a request failed. Every server gives the same code for the same state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum ErrorCode { $($(#[$doc])* $name = $code,)* }

        impl ErrorCode {
            /// Every code, for tables and tests.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code with this number on the wire, if there is one.
            pub fn from_wire(code: i32) -> Option<ErrorCode> {
                match code { $($code => Some(ErrorCode::$name),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The server failed in a way that has no code of its own.
    SystemError = -1,
    /// An operation of a multi that was not tried, because an earlier one failed.
    RuntimeInconsistency = -2,
    /// Two copies of the data differ.
    DataInconsistency = -3,
    /// The connection was lost (made by clients; kept for completeness).
    ConnectionLoss = -4,
    /// The body could not be decoded.
    MarshallingError = -5,
    /// The server does not know the operation.
    Unimplemented = -6,
    /// The operation timed out.
    OperationTimeout = -7,
    /// An argument is wrong: path, flags, ttl.
    BadArguments = -8,
    /// No such session.
    UnknownSession = -12,
    /// No quorum of the new configuration is connected.
    NewConfigNoQuorum = -13,
    /// Another reconfiguration is under way.
    ReconfigInProgress = -14,
    /// Border between system and API errors (never sent).
    ApiError = -100,
    /// No such znode.
    NoNode = -101,
    /// Not permitted by the ACL.
    NoAuth = -102,
    /// The expected version is not the znode's version.
    BadVersion = -103,
    /// Ephemeral znodes have no children.
    NoChildrenForEphemerals = -108,
    /// The znode exists already.
    NodeExists = -110,
    /// The znode has children.
    NotEmpty = -111,
    /// The session has expired or is closing.
    SessionExpired = -112,
    /// Invalid callback (made by clients).
    InvalidCallback = -113,
    /// The ACL is empty, or an entry names no valid scheme or id.
    InvalidAcl = -114,
    /// Authentication failed.
    AuthFailed = -115,
    /// The session has moved to another connection.
    SessionMoved = -118,
    /// A write was sent to a read-only server.
    NotReadOnly = -119,
    /// An ephemeral was created by a local session.
    EphemeralOnLocalSession = -120,
    /// The watch to check or remove is not registered.
    NoWatcher = -121,
    /// The request took too long (made by clients).
    RequestTimeout = -122,
    /// Reconfiguration is disabled.
    ReconfigDisabled = -123,
    /// The server wants its clients authenticated, and this one is not.
    SessionClosedRequireSaslAuth = -124,
    /// A hard quota would be exceeded.
    QuotaExceeded = -125,
    /// The operation was throttled.
    ThrottledOp = -127,
}

impl ErrorCode {
    /// The number of this code on the wire.
    pub fn to_wire(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.to_wire()), Some(*code));
        }
        assert_eq!(ErrorCode::from_wire(0), None);
    }
}
