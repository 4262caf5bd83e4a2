//! The codec against itself: what was written is read back equal, bytes that mean nothing do no harm, and whatever is
//! read in its canonical form is written again to the same bytes.

use super::multi::{MultiReadRequest, MultiRequest, ReadOperation};
use super::request::{
    AddWatchRequest, AuthRequest, CreateRequest, PathKind, PathOnly, PathVersion, PathWatch, Prefix, Query,
    ReconfigRequest, RequestHeader, SaslRequest, SetAclRequest, SetDataRequest, SetWatches2Request, SetWatchesRequest,
    Write,
};
use super::{Acl, ConnectRequest, Decoder, Identity, Malformed, OpCode, Permissions, SessionId, Text, Xid, Zxid};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// Any request that there is, with its body.
#[derive(Clone, Debug, PartialEq)]
enum Body {
    Connect(ConnectRequest),
    Header(RequestHeader),
    Write(Write),
    Query(OpCode, Query),
    PathKind(PathKind),
    AddWatch(AddWatchRequest),
    Auth(AuthRequest),
    Sasl(SaslRequest),
    SetWatches(SetWatchesRequest),
    SetWatches2(SetWatches2Request),
}

impl Body {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Body::Connect(body) => body.encode(out),
            Body::Header(body) => body.encode(out),
            Body::Write(body) => body.encode(out),
            Body::Query(_, body) => body.encode(out),
            Body::PathKind(body) => body.encode(out),
            Body::AddWatch(body) => body.encode(out),
            Body::Auth(body) => body.encode(out),
            Body::Sasl(body) => body.encode(out),
            Body::SetWatches(body) => body.encode(out),
            Body::SetWatches2(body) => body.encode(out),
        }
    }

    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    fn kind(&self) -> Kind {
        match self {
            Body::Connect(_) => Kind::Connect,
            Body::Header(_) => Kind::Header,
            Body::Write(body) => Kind::Op(body.op()),
            Body::Query(op, _) => Kind::Op(*op),
            Body::PathKind(_) => Kind::Op(OpCode::CheckWatches),
            Body::AddWatch(_) => Kind::Op(OpCode::AddWatch),
            Body::Auth(_) => Kind::Op(OpCode::Auth),
            Body::Sasl(_) => Kind::Op(OpCode::Sasl),
            Body::SetWatches(_) => Kind::Op(OpCode::SetWatches),
            Body::SetWatches2(_) => Kind::Op(OpCode::SetWatches2),
        }
    }
}

/// What says which body the bytes are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Connect,
    Header,
    Op(OpCode),
}

/// Reads the body of `kind`; `None` if that has no body.
fn decode(kind: Kind, decoder: &mut Decoder<'_>) -> Option<Result<Body, Malformed>> {
    let op = match kind {
        Kind::Connect => return Some(ConnectRequest::decode(decoder).map(Body::Connect)),
        Kind::Header => return Some(RequestHeader::decode(decoder).map(Body::Header)),
        Kind::Op(op) => op,
    };
    Some(match op {
        OpCode::CheckWatches | OpCode::RemoveWatches => PathKind::decode(decoder).map(Body::PathKind),
        OpCode::AddWatch => AddWatchRequest::decode(decoder).map(Body::AddWatch),
        OpCode::Auth => AuthRequest::decode(decoder).map(Body::Auth),
        OpCode::Sasl => SaslRequest::decode(decoder).map(Body::Sasl),
        OpCode::SetWatches => SetWatchesRequest::decode(decoder).map(Body::SetWatches),
        OpCode::SetWatches2 => SetWatches2Request::decode(decoder).map(Body::SetWatches2),
        op => match Write::decode(op, decoder) {
            Some(write) => write.map(Body::Write),
            None => Query::decode(op, decoder)?.map(|query| Body::Query(op, query)),
        },
    })
}

fn kinds() -> Vec<Kind> {
    let ops = OpCode::ALL.iter().copied().map(Kind::Op);
    [Kind::Connect, Kind::Header].into_iter().chain(ops).collect()
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        Just(Text::EMPTY),
        "/[a-z/.]{0,12}".prop_map(Text::from),
        any::<String>().prop_map(Text::from)
    ]
}

fn texts() -> impl Strategy<Value = Vec<Text>> {
    vec(text(), 0..4)
}

fn buffer() -> impl Strategy<Value = Option<Bytes>> {
    of(vec(any::<u8>(), 0..24).prop_map(Bytes::from))
}

fn acl() -> impl Strategy<Value = Option<Vec<Acl>>> {
    let entry = (any::<i32>(), text(), text()).prop_map(|(permissions, scheme, id)| Acl {
        permissions: Permissions(permissions),
        identity: Identity { scheme, id },
    });
    of(vec(entry, 0..4))
}

const CREATES: &[OpCode] = &[
    OpCode::Create,
    OpCode::Create2,
    OpCode::CreateContainer,
    OpCode::CreateTtl,
];

fn create(flags: impl Strategy<Value = i32>) -> impl Strategy<Value = Write> {
    (select(CREATES), text(), buffer(), acl(), flags, any::<i64>()).prop_map(|(op, path, data, acl, flags, ttl_ms)| {
        let ttl_ms = (op == OpCode::CreateTtl).then_some(ttl_ms);
        let request = CreateRequest {
            path,
            data,
            acl,
            flags,
            ttl_ms,
        };
        Write::Create(op, request)
    })
}

/// In a multi the flags decide what is created: those that say something else than the op code are not canonical.
fn create_in_multi() -> impl Strategy<Value = Write> {
    let pairs = [0, 1, 2, 3]
        .into_iter()
        .flat_map(|flags| CREATES[..3].iter().map(move |op| (*op, flags)))
        .chain([
            (OpCode::CreateContainer, 4),
            (OpCode::CreateTtl, 5),
            (OpCode::CreateTtl, 6),
        ])
        .collect::<Vec<_>>();
    (select(pairs), create(Just(0))).prop_map(|((op, flags), write)| match write {
        Write::Create(_, request) => Write::Create(
            op,
            CreateRequest {
                acl: Some(request.acl.unwrap_or_default()),
                flags,
                ttl_ms: (op == OpCode::CreateTtl).then_some(5),
                ..request
            },
        ),
        other => other,
    })
}

fn path_version() -> impl Strategy<Value = PathVersion> {
    (text(), any::<i32>()).prop_map(|(path, version)| PathVersion { path, version })
}

fn set_data() -> impl Strategy<Value = Write> {
    (text(), buffer(), any::<i32>())
        .prop_map(|(path, data, version)| Write::SetData(SetDataRequest { path, data, version }))
}

fn write() -> impl Strategy<Value = Write> {
    let operation = prop_oneof![
        create_in_multi(),
        path_version().prop_map(Write::Delete),
        path_version().prop_map(Write::Check),
        set_data(),
    ];
    let set_acl = (text(), acl(), any::<i32>())
        .prop_map(|(path, acl, version)| Write::SetAcl(SetAclRequest { path, acl, version }));
    let reconfig =
        (of(text()), of(text()), of(text()), any::<i64>()).prop_map(|(joining, leaving, members, config_version)| {
            Write::Reconfig(ReconfigRequest {
                joining,
                leaving,
                members,
                config_version,
            })
        });
    prop_oneof![
        create(any::<i32>()),
        path_version().prop_map(Write::Delete),
        path_version().prop_map(Write::Check),
        set_data(),
        set_acl,
        reconfig,
        vec(operation, 0..5).prop_map(|operations| Write::Multi(MultiRequest { operations })),
    ]
}

fn path_watch() -> impl Strategy<Value = PathWatch> {
    (text(), any::<bool>()).prop_map(|(path, watch)| PathWatch { path, watch })
}

fn query() -> impl Strategy<Value = Body> {
    let read = prop_oneof![
        path_watch().prop_map(ReadOperation::GetData),
        path_watch().prop_map(ReadOperation::GetChildren),
    ];
    let only = || text().prop_map(|path| PathOnly { path });
    prop_oneof![
        path_watch().prop_map(|body| Body::Query(OpCode::Exists, Query::Exists(body))),
        path_watch().prop_map(|body| Body::Query(OpCode::GetData, Query::GetData(body))),
        path_watch().prop_map(|body| Body::Query(OpCode::GetChildren, Query::GetChildren(body))),
        path_watch().prop_map(|body| Body::Query(OpCode::GetChildren2, Query::GetChildren2(body))),
        only().prop_map(|body| Body::Query(OpCode::GetAcl, Query::GetAcl(body))),
        text().prop_map(|path| Body::Query(OpCode::GetEphemerals, Query::GetEphemerals(Prefix { path }))),
        only().prop_map(|body| Body::Query(OpCode::GetAllChildrenNumber, Query::GetAllChildrenNumber(body))),
        vec(read, 0..5).prop_map(|operations| {
            Body::Query(OpCode::MultiRead, Query::MultiRead(MultiReadRequest { operations }))
        }),
    ]
}

fn watches() -> impl Strategy<Value = Body> {
    let zxid = || any::<i64>().prop_map(Zxid);
    prop_oneof![
        (text(), any::<i32>()).prop_map(|(path, kind)| Body::PathKind(PathKind { path, kind })),
        (text(), any::<i32>()).prop_map(|(path, mode)| Body::AddWatch(AddWatchRequest { path, mode })),
        (zxid(), texts(), texts(), texts()).prop_map(|(relative_zxid, data, exist, child)| {
            Body::SetWatches(SetWatchesRequest {
                relative_zxid,
                data,
                exist,
                child,
            })
        }),
        (zxid(), texts(), texts(), texts(), texts(), texts()).prop_map(
            |(relative_zxid, data, exist, child, persistent, recursive)| {
                Body::SetWatches2(SetWatches2Request {
                    relative_zxid,
                    data,
                    exist,
                    child,
                    persistent,
                    recursive,
                })
            }
        ),
    ]
}

fn connection() -> impl Strategy<Value = Body> {
    let connect = (
        any::<i32>(),
        any::<i64>(),
        any::<i32>(),
        any::<i64>(),
        buffer(),
        of(any::<bool>()),
    )
        .prop_map(|(protocol_version, zxid, timeout_ms, session, password, read_only)| {
            Body::Connect(ConnectRequest {
                protocol_version,
                last_zxid_seen: Zxid(zxid),
                timeout_ms,
                session: SessionId(session),
                password,
                read_only,
            })
        });
    prop_oneof![
        connect,
        (any::<i32>(), any::<i32>()).prop_map(|(xid, op)| Body::Header(RequestHeader { xid: Xid(xid), op })),
        (any::<i32>(), text(), buffer())
            .prop_map(|(kind, scheme, auth)| { Body::Auth(AuthRequest { kind, scheme, auth }) }),
        buffer().prop_map(|token| Body::Sasl(SaslRequest { token })),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![4 => write().prop_map(Body::Write), 2 => query(), 1 => watches(), 1 => connection()]
}

/// Reads `frame` as a body of `kind`. If that works, what was read must be written to the same bytes again, unless the
/// decoder says that it was lenient, and be read from those again.
fn survives(kind: Kind, frame: &Bytes) -> Result<(), TestCaseError> {
    let mut decoder = Decoder::new(frame);
    let Some(Ok(body)) = decode(kind, &mut decoder) else {
        return Ok(());
    };
    let read = frame.len() - decoder.remaining();
    let written = body.to_bytes();
    if decoder.is_canonical() {
        prop_assert_eq!(&written, &frame[..read], "{:?}", kind);
    }
    let again = decode(kind, &mut Decoder::new(&written));
    prop_assert_eq!(again, Some(Ok(body)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_back_equal(body in body()) {
        let frame = body.to_bytes();
        let mut decoder = Decoder::new(&frame);
        prop_assert_eq!(decode(body.kind(), &mut decoder), Some(Ok(body)));
        prop_assert_eq!(decoder.remaining(), 0);
        prop_assert!(decoder.is_canonical());
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_never_do_harm(bytes in vec(any::<u8>(), 0..200)) {
        let frame = Bytes::from(bytes);
        for kind in kinds() {
            survives(kind, &frame)?;
        }
    }

    #[test]
    fn a_frame_that_was_cut_or_altered_does_no_harm(
        body in body(),
        cut in 0..200_usize,
        place in 0..200_usize,
        byte in prop_oneof![any::<u8>(), Just(0), Just(0x7f), Just(0xff)],
    ) {
        let mut bytes = body.to_bytes().to_vec();
        let altered = place % bytes.len().max(1);
        if let Some(old) = bytes.get_mut(altered) {
            *old = byte;
        }
        let whole = Bytes::from(bytes.clone());
        bytes.truncate(cut);
        for frame in [whole, Bytes::from(bytes)] {
            survives(body.kind(), &frame)?;
        }
    }
}
