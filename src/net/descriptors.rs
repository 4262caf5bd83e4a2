//! Descriptors: how many files and sockets this process may have open, and how many of them clients may take.
//!
//! A server that cannot open a segment of its log, or a table of its tree, has to stop. So clients never get the last
//! descriptors: beyond what is left to them, connections are closed at the door.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept from clients, where there are many: for the log's segments, the tree's tables, links to the
/// other servers, listening sockets, and the connections of operators. About fifty are in use on a quiet server.
const RESERVED: u64 = 512;
/// Where there are few, clients get all but one in so many.
const RESERVED_PART: u64 = 4;

/// What the system gives this process, and what of it clients may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Open files and sockets at most (`ulimit -n`).
    pub limit: u64,
    /// Connections of clients at most.
    pub clients: usize,
}

/// Raises the limit as far as the system allows this process to (`ulimit -Hn`), and says where it is; `None`: there is none.
pub fn raise_limit() -> Option<Descriptors> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        // What is there must do.
        Err(_) => current,
    };
    limit.map(shared_out)
}

fn shared_out(limit: u64) -> Descriptors {
    let clients = limit - RESERVED.min(limit / RESERVED_PART);
    Descriptors {
        limit,
        clients: usize::try_from(clients).unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_last_descriptors() {
        let clients = |limit| shared_out(limit).clients;
        assert_eq!([clients(256), clients(1024), clients(20_000)], [192, 768, 19_488]);
    }
}
