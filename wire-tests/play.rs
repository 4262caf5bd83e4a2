//! Plays a script against a server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::pattern::{Frame, Item, accept_frame, encode, encode_items};
use crate::script::{Action, Flavour, Line, Script};
use crate::target::{Server, Target};
use crate::text;
use crate::tokens::{Value, Values};

/// How long an expected frame may take. Generous: it only ends a test that has failed already.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of a script is longer; a length above it is taken for an error of the server.
const LARGEST_FRAME_BYTES: usize = 16 << 20;

/// Runs the script on a server of its own (or the shared one). The error says which step failed, and how.
pub(crate) fn run(script: &Script, target: &Target) -> Result<(), String> {
    target.with_server(script, |server| {
        let mut player = Player::new(server, target.flavour());
        for step in &script.steps {
            player.play(&step.action).map_err(|error| {
                let log = player.server.log_tail();
                format!("{}.wire:{}: {}\n    {error}{log}", script.name, step.line, step.text)
            })?;
        }
        player
            .nothing_is_left()
            .map_err(|error| format!("{}.wire, at the end: {error}", script.name))
    })
}

struct Player<'a> {
    server: &'a mut Server,
    flavour: Flavour,
    connections: HashMap<String, Connection>,
    values: Values,
    marks: HashMap<String, Instant>,
}

impl<'a> Player<'a> {
    fn new(server: &'a mut Server, flavour: Flavour) -> Self {
        let port = Value::Number(i64::from(server.address().port()));
        let folder = Value::Bytes(Some(server.data_folder().into_bytes()));
        let values = Values::from([("port".to_owned(), port), ("dir".to_owned(), folder)]);
        Player {
            server,
            flavour,
            connections: HashMap::new(),
            values,
            marks: HashMap::new(),
        }
    }

    fn play(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect(name) => self.connect(name),
            Action::Session { connection, timeout_ms } => self.session(connection, *timeout_ms),
            Action::Send { connection, frames } => self.send(connection, frames),
            Action::Expect {
                connection,
                frames,
                ordered: true,
            } => self.expect_in_order(connection, frames),
            Action::Expect {
                connection,
                frames,
                ordered: false,
            } => self.expect_in_any_order(connection, frames),
            Action::ExpectClose { connection, strict } => {
                self.connection(connection)?.expect_close(*strict)?;
                self.connections.remove(connection);
                Ok(())
            }
            Action::Quiet(connection) => self.connection(connection)?.expect_quiet(),
            Action::Close(connection) => {
                self.connection(connection)?;
                self.connections.remove(connection);
                Ok(())
            }
            Action::Shutdown(connection) => {
                let connection = self.connection(connection)?;
                connection
                    .stream
                    .shutdown(Shutdown::Write)
                    .map_err(|error| error.to_string())
            }
            Action::FourLetterWord { items, lines } => self.four_letter_word(items, lines),
            Action::Mark(name) => {
                self.marks.insert(name.clone(), Instant::now());
                Ok(())
            }
            Action::Since { mark, at_least_ms } => {
                let passed = self
                    .marks
                    .get(mark)
                    .ok_or_else(|| format!("no mark '{mark}'"))?
                    .elapsed();
                if passed >= Duration::from_millis(*at_least_ms) {
                    Ok(())
                } else {
                    Err(format!("only {} ms have passed", passed.as_millis()))
                }
            }
            Action::Let { name, sum } => {
                let number = sum.value(&self.values)?;
                self.values.insert(name.clone(), Value::Number(number));
                Ok(())
            }
            Action::Restart => self.server.restart(true),
            Action::Crash => self.server.restart(false),
            Action::For {
                variable,
                from,
                to,
                body,
            } => (*from..=*to).try_for_each(|number| {
                self.values.insert(variable.clone(), Value::Number(number));
                self.play(body)
                    .map_err(|error| format!("{variable} = {number}: {error}"))
            }),
            Action::Eventually(body) => self.retry(body),
            Action::Only { flavour, body } if *flavour == self.flavour => self.play(body),
            Action::Only { .. } | Action::Nothing => Ok(()),
        }
    }

    fn retry(&mut self, action: &Action) -> Result<(), String> {
        const PAUSE: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.play(action);
            if outcome.is_ok() || Instant::now() > deadline {
                return outcome;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn connect(&mut self, name: &str) -> Result<(), String> {
        let connection = Connection::open(self.server.address())?;
        let port = connection
            .stream
            .local_addr()
            .map_err(|error| error.to_string())?
            .port();
        self.values
            .insert(format!("{name}.port"), Value::Number(i64::from(port)));
        self.connections.insert(name.to_owned(), connection);
        Ok(())
    }

    /// The handshake of a new session as Java's client does it; handshake.wire spells it out.
    fn session(&mut self, name: &str, timeout_ms: i64) -> Result<(), String> {
        self.connect(name)?;
        let mut request = vec![0; 49];
        request[..4].copy_from_slice(&45_u32.to_be_bytes());
        request[16..20].copy_from_slice(&timeout_ms.to_be_bytes()[4..]);
        request[31] = 16;
        let connection = self.connection(name)?;
        connection.write(&request)?;
        connection.is_session = true;
        let reply = connection.read_frame()?;
        let field = |from: usize, to: usize| {
            reply.get(from..to).map(|bytes| {
                bytes
                    .iter()
                    .fold(0_i64, |number, &byte| (number << 8) | i64::from(byte))
            })
        };
        match (reply.len(), field(4, 8), field(8, 16), reply.get(20..36)) {
            (37, Some(timeout), Some(id), Some(password)) if timeout > 0 => {
                self.values.insert(format!("{name}.timeout"), Value::Number(timeout));
                self.values.insert(format!("{name}.id"), Value::Number(id));
                self.values
                    .insert(format!("{name}.password"), Value::Bytes(Some(password.to_vec())));
                Ok(())
            }
            _ => Err(format!("the handshake was answered with {}", hexadecimal(&reply))),
        }
    }

    fn send(&mut self, name: &str, frames: &[Frame]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend(encode(frame, &self.values)?);
        }
        self.connection(name)?.write(&bytes)
    }

    fn expect_in_order(&mut self, name: &str, frames: &[Frame]) -> Result<(), String> {
        for (index, frame) in frames.iter().enumerate() {
            let payload = self.connection(name)?.read_frame()?;
            accept_frame(&frame.items, &payload, &mut self.values)
                .map_err(|error| format!("frame {}: {error}\n    got {}", index + 1, hexadecimal(&payload)))?;
        }
        Ok(())
    }

    fn expect_in_any_order(&mut self, name: &str, frames: &[Frame]) -> Result<(), String> {
        let mut open: Vec<&Frame> = frames.iter().collect();
        while !open.is_empty() {
            let payload = self.connection(name)?.read_frame()?;
            let index = open.iter().position(|frame| {
                let mut values = self.values.clone();
                let fits = accept_frame(&frame.items, &payload, &mut values).is_ok();
                if fits {
                    self.values = values;
                }
                fits
            });
            let Some(index) = index else {
                return Err(format!(
                    "none of the {} frames left fits {}",
                    open.len(),
                    hexadecimal(&payload)
                ));
            };
            open.remove(index);
        }
        Ok(())
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, String> {
        self.connections
            .get_mut(name)
            .ok_or_else(|| format!("no connection '{name}'"))
    }

    fn four_letter_word(&self, items: &[Item], lines: &[Line]) -> Result<(), String> {
        let mut request = Vec::new();
        encode_items(items, &self.values, &mut request)?;
        let mut connection = Connection::open(self.server.address())?;
        connection.write(&request)?;
        // A reset behind the answer is how a server closes that had unread input; what it said before counts.
        while connection.read_some()? {}
        text::compare(&connection.buffer, lines, &self.values).map_err(|error| {
            format!(
                "{error}\n    the answer:\n{}",
                String::from_utf8_lossy(&connection.buffer)
            )
        })
    }

    /// The end of a script: sessions that are still open must not have been sent anything that it did not expect.
    fn nothing_is_left(&mut self) -> Result<(), String> {
        for (name, connection) in &mut self.connections {
            if connection.is_session {
                connection
                    .expect_quiet()
                    .map_err(|error| format!("connection {name}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// A socket, and what has arrived on it but was not looked at yet.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_session: bool,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, String> {
        // Not with a time-out: that reports a server that has accepted and closed already as a failure to connect.
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(|error| error.to_string())?;
        stream
            .set_write_timeout(Some(PATIENCE))
            .map_err(|error| error.to_string())?;
        // It fails if the server has closed already, which a script may be waiting for.
        let _ = stream.set_nodelay(true);
        Ok(Connection {
            stream,
            buffer: Vec::new(),
            is_session: false,
        })
    }

    /// A server may close while it is still being written to: what the script expects next will tell.
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.stream.write_all(bytes) {
            Err(error) if !is_closed(&error) => Err(format!("sending: {error}")),
            _ => Ok(()),
        }
    }

    /// Waits for more bytes; false when the server has closed.
    fn read_some(&mut self) -> Result<bool, String> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(size) => {
                self.buffer.extend_from_slice(&chunk[..size]);
                Ok(true)
            }
            Err(error) if is_closed(&error) => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(format!("nothing more within {} s", PATIENCE.as_secs())),
        }
    }

    fn read_frame(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > LARGEST_FRAME_BYTES {
                    return Err(format!("a frame's length is {length}: {}", hexadecimal(&self.buffer)));
                }
                if let Some(payload) = rest.get(..length) {
                    let payload = payload.to_vec();
                    self.buffer.drain(..4 + length);
                    return Ok(payload);
                }
            }
            if !self.read_some()? {
                return Err(format!(
                    "the server closed the connection; before that: {}",
                    hexadecimal(&self.buffer)
                ));
            }
        }
    }

    fn expect_close(&mut self, strict: bool) -> Result<(), String> {
        while (self.buffer.is_empty() || !strict) && self.read_some()? {}
        if self.buffer.is_empty() || !strict {
            Ok(())
        } else {
            Err(format!("instead came {}", hexadecimal(&self.buffer)))
        }
    }

    fn expect_quiet(&mut self) -> Result<(), String> {
        self.write(&[0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11])?;
        let reply = self.read_frame()?;
        if reply.len() == 16 && reply.starts_with(&(-2_i32).to_be_bytes()) && reply.ends_with(&[0; 4]) {
            Ok(())
        } else {
            Err(format!("instead of the answer to a ping came {}", hexadecimal(&reply)))
        }
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Groups of four bytes, then the printable characters; long ones are cut.
fn hexadecimal(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 400;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let groups: Vec<String> = cut
        .chunks(4)
        .map(|group| group.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let printable: String = cut
        .iter()
        .map(|&byte| {
            if (0x20..0x7f).contains(&byte) {
                char::from(byte)
            } else {
                '.'
            }
        })
        .collect();
    format!("{} bytes: {} {printable}", bytes.len(), groups.join(" "))
}
