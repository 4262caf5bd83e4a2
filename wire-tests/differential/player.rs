//! Plays one sequence against one server and writes down what every session saw.
//!
//! One step at a time: the acting session sends and reads its replies, then every open session is fenced with a ping.
//! Events are queued before the reply of the write that caused them (on every connection, because the write is applied
//! once), so what precedes the fence is everything that the step caused, and two servers can be compared step by step.

use std::collections::HashMap;

use crate::client::{Connection, Malformed, Reader, Received, framed};
use crate::operation::{Action, ROOT_MARK, Request, Step, Surroundings, opcode};
use crate::reply::{self, Event, Header, Piece, Stat};
use crate::session::Slot;
use crate::target::{Administrator, Target};
use crate::view::{Names, error_name, event_name};

/// How many sessions a sequence has.
pub const SESSIONS: usize = 4;
/// What a session asks for unless the step says otherwise; long enough that no pause of a machine ends it.
pub const USUAL_TIMEOUT_MS: i32 = 40_000;
/// The xid of the fence.
const PING_XID: i32 = -2;
const MARSHALLING_ERROR: i32 = -5;
const NO_AUTH: i32 = -102;

/// What a step showed, one line per reply or event.
pub type StepView = Vec<String>;

/// Plays `steps` below a fresh root. The last view is the tree that they left.
///
/// # Errors
/// When the server does not let us begin or end: it is gone, or broken beyond comparison.
pub fn play(target: &mut Target, run: u64, steps: &[Step]) -> Result<Vec<StepView>, String> {
    let root = format!("/run{run:06}");
    let administrator = target.administrator()?;
    let bases = administrator.prepare(&root)?;
    let mut names = Names::new(root.clone(), administrator.last_zxid());
    for (path, stat) in bases {
        names.set_base(&path, stat);
    }
    let mut player = Player {
        address: target.address,
        root: root.clone(),
        slots: (0..SESSIONS).map(|_| Slot::default()).collect(),
        names,
        seen: HashMap::new(),
        replied_zxids: Vec::new(),
        sequence_step: 0,
    };
    let mut views = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        player.sequence_step = index;
        let view = player.step(step);
        let silent = view.iter().any(|line| line.contains(SILENCE));
        views.push(view);
        if silent {
            break; // Every further step would wait as long again.
        }
    }
    let administrator = target.administrator()?;
    views.push(player.final_state(administrator)?);
    player.leave();
    target.administrator()?.clear(&root)?;
    Ok(views)
}

/// The tree of a server on which nothing has happened yet. Versions, zxids and times as they are: all zero, or special.
///
/// # Errors
/// When the server does not let us look.
pub fn fresh_tree(target: &mut Target) -> Result<StepView, String> {
    let mut names = Names::new("/nothing".to_owned(), i64::MAX);
    let mut view = Vec::new();
    for (path, pieces) in target.administrator()?.dump(None)? {
        let pieces: Vec<String> = pieces.iter().map(|piece| names.piece(piece)).collect();
        view.push(format!("{path}, {}", pieces.join(", ")));
    }
    Ok(view)
}

/// Marks the line of a session that waited in vain.
const SILENCE: &str = "nothing arrives";

/// What one connection received during a step, in order.
pub enum Incoming {
    /// The reply to the request with this index in the step.
    Reply(usize, Header, Vec<u8>),
    /// A watch event.
    Event(Event),
    /// The fence's reply.
    Fence(Header),
    /// The end.
    Closed,
    /// Anything else, described.
    Odd(String),
}

/// A sequence under way on one server.
pub struct Player {
    /// The server.
    pub address: std::net::SocketAddr,
    root: String,
    /// The sessions.
    pub slots: Vec<Slot>,
    /// What is shown instead of zxids, times and ids.
    pub names: Names,
    seen: HashMap<String, Stat>,
    replied_zxids: Vec<i64>,
    sequence_step: usize,
}

struct Known<'a> {
    root: &'a str,
    seen: &'a HashMap<String, Stat>,
    replied_zxids: &'a [i64],
}

impl Surroundings for Known<'_> {
    fn path(&self, path: &str) -> String {
        path.replace(ROOT_MARK, self.root)
    }

    fn seen_version(&self, path: &str, acl: bool) -> i32 {
        self.seen
            .get(path)
            .map_or(0, |stat| if acl { stat.aversion } else { stat.version })
    }

    fn zxid_back(&self, replies: usize) -> i64 {
        self.replied_zxids.iter().rev().nth(replies).copied().unwrap_or(0)
    }
}

impl Player {
    fn step(&mut self, step: &Step) -> StepView {
        let mut view = Vec::new();
        let session = step.session;
        let mut incoming: Vec<Vec<Incoming>> = (0..SESSIONS).map(|_| Vec::new()).collect();
        let mut requests: &[Request] = &[];
        match &step.action {
            Action::Send(sent) => {
                requests = sent;
                self.connect_if_needed(session, &mut view);
                incoming[session] = self.exchange(session, sent);
            }
            Action::BadFrame(bytes) => {
                self.connect_if_needed(session, &mut view);
                incoming[session] = self.send_bad_frame(session, bytes);
            }
            Action::Drop => self.drop_connection(session),
            Action::Resume(resume) => self.resume(session, *resume, &mut view),
            Action::Open {
                timeout_ms,
                with_read_only_byte,
                behind,
            } => {
                requests = behind;
                self.drop_connection(session);
                let (bytes, xids) = self.encoded(session, behind);
                if self.open_session(session, *timeout_ms, *with_read_only_byte, bytes, &mut view) {
                    incoming[session] = self.replies(session, behind, &xids);
                }
            }
        }
        self.fence(&mut incoming);
        self.name_writes(&incoming[session], requests);
        for (other, received) in incoming.into_iter().enumerate() {
            let received = in_comparable_order(received, requests);
            for one in received {
                if let Some(line) = self.line(&one, if other == session { requests } else { &[] }) {
                    view.push(format!("session {other}: {line}"));
                }
            }
        }
        view
    }

    /// Sends the requests at once and collects what comes until the last of their replies.
    pub fn exchange(&mut self, session: usize, requests: &[Request]) -> Vec<Incoming> {
        let readable: Vec<Request> = requests
            .iter()
            .map(|request| self.only_readable(session, request))
            .collect();
        self.talk(session, &readable)
    }

    /// A `setWatches` without those paths that the session may not read. Apache's tells of their changes nevertheless;
    /// ours does not, as for any other event.
    fn only_readable(&mut self, session: usize, request: &Request) -> Request {
        let Request::SetWatches { relative, lists } = request else {
            return request.clone();
        };
        let paths: Vec<&String> = lists.data.iter().chain(&lists.exist).chain(&lists.child).collect();
        let exists = |path: &&String| Request::Read {
            opcode: opcode::EXISTS,
            path: Some((*path).clone()),
            watch: false,
        };
        let probes: Vec<Request> = paths.iter().map(exists).collect();
        let forbidden: Vec<String> = (self.talk(session, &probes).iter())
            .filter_map(|one| match one {
                Incoming::Reply(index, header, _) if header.error == NO_AUTH => Some(paths[*index].clone()),
                _ => None,
            })
            .collect();
        let mut lists = lists.clone();
        for list in [&mut lists.data, &mut lists.exist, &mut lists.child] {
            list.retain(|path| !forbidden.contains(path));
        }
        Request::SetWatches {
            relative: *relative,
            lists,
        }
    }

    fn talk(&mut self, session: usize, requests: &[Request]) -> Vec<Incoming> {
        let (bytes, xids) = self.encoded(session, requests);
        if let Some(connection) = self.slots[session].connection.as_mut() {
            connection.send(&bytes);
        }
        self.replies(session, requests, &xids)
    }

    /// The frames of the requests, and their xids.
    fn encoded(&mut self, session: usize, requests: &[Request]) -> (Vec<u8>, Vec<i32>) {
        let known = Known {
            root: &self.root,
            seen: &self.seen,
            replied_zxids: &self.replied_zxids,
        };
        let slot = &mut self.slots[session];
        let mut bytes = Vec::new();
        let mut xids = Vec::new();
        for request in requests {
            let xid = request.reserved_xid().unwrap_or_else(|| {
                slot.next_xid += 1;
                slot.next_xid
            });
            xids.push(xid);
            bytes.extend_from_slice(&framed(&request.payload(xid, &known)));
        }
        (bytes, xids)
    }

    /// What comes until the last of the replies.
    fn replies(&mut self, session: usize, requests: &[Request], xids: &[i32]) -> Vec<Incoming> {
        let slot = &mut self.slots[session];
        let mut incoming = Vec::new();
        let Some(connection) = slot.connection.as_mut() else {
            return incoming;
        };
        let mut replies = 0;
        while replies < xids.len() {
            match receive(connection) {
                Incoming::Reply(_, header, frame) => {
                    if header.xid != xids[replies] {
                        incoming.push(Incoming::Odd(format!("the reply to request {replies} has another xid")));
                    }
                    slot.last_zxid = slot.last_zxid.max(header.zxid);
                    incoming.push(Incoming::Reply(replies, header, frame));
                    replies += 1;
                }
                Incoming::Closed => {
                    incoming.push(Incoming::Closed);
                    slot.connection = None;
                    break;
                }
                Incoming::Odd(text) => {
                    let silent = text == SILENCE;
                    incoming.push(Incoming::Odd(text));
                    if silent {
                        break;
                    }
                }
                other => incoming.push(other),
            }
        }
        let last = incoming.iter().rev().find_map(|one| match one {
            Incoming::Reply(index, header, _) => Some((&requests[*index], header.error)),
            _ => None,
        });
        if let Some((request, error)) = last.filter(|(request, error)| request.closes(*error)) {
            if matches!(request, Request::CloseSession) && error == 0 {
                slot.closed = slot.session.take();
            }
            // Not a ping: Apache's may still answer one before it gets round to closing.
            if let Some(mut connection) = slot.connection.take() {
                read_to_the_end(&mut connection, &mut incoming);
            }
        }
        incoming
    }

    fn send_bad_frame(&mut self, session: usize, bytes: &[u8]) -> Vec<Incoming> {
        let slot = &mut self.slots[session];
        let Some(connection) = slot.connection.as_mut() else {
            return Vec::new();
        };
        connection.send(bytes);
        let mut incoming = Vec::new();
        read_to_the_end(connection, &mut incoming);
        slot.connection = None;
        incoming
    }

    /// Collects everything that the step has caused.
    fn fence(&mut self, incoming: &mut [Vec<Incoming>]) {
        let mut ping = Vec::new();
        ping.extend_from_slice(&PING_XID.to_be_bytes());
        ping.extend_from_slice(&11_i32.to_be_bytes());
        let ping = framed(&ping);
        for connection in self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut()) {
            connection.send(&ping);
        }
        for (slot, incoming) in self.slots.iter_mut().zip(incoming) {
            let Some(connection) = slot.connection.as_mut() else {
                continue;
            };
            loop {
                let one = match receive(connection) {
                    Incoming::Reply(_, header, frame) if header.xid == PING_XID => {
                        incoming.push(Incoming::Fence(header));
                        if frame.len() > 16 {
                            incoming.push(Incoming::Odd("a ping's reply with a body".to_owned()));
                        }
                        break;
                    }
                    Incoming::Reply(_, header, _) => {
                        Incoming::Odd(format!("a reply that nobody asked for: {header:?}"))
                    }
                    other => other,
                };
                let ends = match &one {
                    Incoming::Closed => true,
                    Incoming::Odd(text) => text == SILENCE,
                    _ => false,
                };
                incoming.push(one);
                if ends {
                    slot.connection = None;
                    break;
                }
            }
        }
    }

    fn name_writes(&mut self, incoming: &[Incoming], requests: &[Request]) {
        for one in incoming {
            let Incoming::Reply(index, header, _) = one else {
                continue;
            };
            self.replied_zxids.push(header.zxid);
            if requests[*index].is_write() && header.error != MARSHALLING_ERROR {
                self.names
                    .name_write(header.zxid, format!("#{}.{index}", self.sequence_step));
            }
        }
    }

    fn line(&mut self, incoming: &Incoming, requests: &[Request]) -> Option<String> {
        match incoming {
            Incoming::Reply(index, header, frame) => {
                let request = &requests[*index];
                let name = format!("#{}.{index}", self.sequence_step);
                let zxid = if !request.is_write() {
                    self.names.at_least(header.zxid)
                } else if header.error == MARSHALLING_ERROR {
                    // Apache's takes a zxid for some undecodable writes and none for others: no promise to a client.
                    "unspecified".to_owned()
                } else if self.names.exact(header.zxid) == name {
                    "its own".to_owned()
                } else {
                    format!("not its own: {}", self.names.exact(header.zxid))
                };
                let body = self.reply_body(request, header, frame);
                Some(format!("reply {index}: {} zxid {zxid}{body}", error_name(header.error)))
            }
            Incoming::Event(event) => Some(format!(
                "event {} state {} {:?} zxid {}",
                event_name(event.kind),
                event.state,
                self.names.unrooted(&event.path),
                self.names.exact(event.zxid)
            )),
            Incoming::Fence(header) if header.error != 0 => Some(format!("a ping fails: {header:?}")),
            Incoming::Fence(header) if self.names.is_behind(header.zxid) => {
                Some("a ping shows a zxid before the last write's".to_owned())
            }
            Incoming::Fence(_) => None,
            Incoming::Closed => Some("the connection is closed".to_owned()),
            Incoming::Odd(text) => Some(text.clone()),
        }
    }

    fn reply_body(&mut self, request: &Request, header: &Header, frame: &[u8]) -> String {
        let mut reader = Reader::new(&frame[16..]);
        if header.error != 0 {
            return match reader.remaining() {
                0 => String::new(),
                // Apache's sends what it had of the answer when it met the operation that it cannot read.
                _ if request.opcode() == opcode::MULTI_READ => String::new(),
                more => format!(", an error with a body of {more} bytes"),
            };
        }
        let path = request.path().unwrap_or("").to_owned();
        let pieces = match reply::body(request, &path, &mut reader) {
            Ok(pieces) => pieces,
            Err(Malformed(text)) => return format!(", malformed: {text}"),
        };
        let mut text = String::new();
        for piece in &pieces {
            if let Piece::Stat(stat, at) = piece {
                self.seen.insert(self.names.unrooted(at), *stat);
            }
            text.push_str(", ");
            text.push_str(&self.names.piece(piece));
        }
        text
    }

    /// Everything below the run's roots, read by the administrator.
    fn final_state(&mut self, administrator: &mut Administrator) -> Result<StepView, String> {
        let mut view = Vec::new();
        for (path, pieces) in administrator.dump(Some(&self.root))? {
            let mut line = format!("final {}", self.names.unrooted(&path));
            for piece in &pieces {
                line.push_str(", ");
                line.push_str(&self.names.piece(piece));
            }
            view.push(line);
        }
        Ok(view)
    }
}

/// Reads until the server has closed the connection, or until it is clear that it does not.
fn read_to_the_end(connection: &mut Connection, incoming: &mut Vec<Incoming>) {
    loop {
        let one = match receive(connection) {
            Incoming::Reply(_, header, _) => Incoming::Odd(format!("a reply instead of the end: {header:?}")),
            other => other,
        };
        let ends = matches!(&one, Incoming::Closed | Incoming::Odd(_));
        incoming.push(one);
        if ends {
            return;
        }
    }
}

/// The next frame, by what it is.
pub fn receive(connection: &mut Connection) -> Incoming {
    let frame = match connection.receive() {
        Received::Frame(frame) => frame,
        Received::Closed => return Incoming::Closed,
        Received::Silence => return Incoming::Odd(SILENCE.to_owned()),
    };
    let mut reader = Reader::new(&frame);
    let parsed = reply::header(&mut reader).and_then(|header| {
        if header.xid == -1 {
            return reply::event(header, &mut reader).map(Incoming::Event);
        }
        Ok(Incoming::Reply(0, header, frame.clone()))
    });
    parsed.unwrap_or_else(|Malformed(text)| Incoming::Odd(format!("a malformed frame: {text}")))
}

/// Sorts those events whose order among each other nothing promises: a closing session's ephemerals go in the order of
/// a hash table, and a client sends the lists of `setWatches` in one. Events of different zxids are never exchanged.
fn in_comparable_order(mut incoming: Vec<Incoming>, requests: &[Request]) -> Vec<Incoming> {
    let unordered = |request: &Request| matches!(request, Request::CloseSession | Request::SetWatches { .. });
    if !requests.iter().any(unordered) {
        return incoming;
    }
    let zxid = |one: &Incoming| match one {
        Incoming::Event(event) => Some(event.zxid),
        _ => None,
    };
    for group in incoming.chunk_by_mut(|left, right| zxid(left).is_some() && zxid(left) == zxid(right)) {
        group.sort_by_key(|one| match one {
            Incoming::Event(event) => (event.path.clone(), event.kind),
            _ => (String::new(), 0),
        });
    }
    incoming
}
