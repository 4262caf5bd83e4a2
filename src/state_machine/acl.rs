//! Rights: lists of access control, kept once each, and who may do what.
//!
//! Source: Apache's `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL` and its authentication providers.

use super::command::Rules;
use crate::proto::{Acl, ErrorCode, Identity, Permissions};
use hashbrown::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

/// The number under which a list is kept; 0 is the open one (everything for everybody).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclId(pub u32);

impl AclId {
    /// `world:anyone:cdrwa`, which is never stored.
    pub const OPEN: AclId = AclId(0);
}

/// A znode's list, cheap to clone. The open list, which nearly all znodes have, takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclRef(Option<Arc<[Acl]>>);

static OPEN_LIST: [Acl; 1] = [Acl::open()];

impl AclRef {
    /// `world:anyone:cdrwa`.
    pub const OPEN: AclRef = AclRef(None);

    /// A list of its own.
    pub fn new(entries: &[Acl]) -> AclRef {
        if entries == OPEN_LIST {
            return AclRef::OPEN;
        }
        AclRef(Some(entries.iter().map(copied).collect()))
    }

    /// Its entries.
    pub fn entries(&self) -> &[Acl] {
        self.0.as_deref().unwrap_or(&OPEN_LIST)
    }

    /// About how much memory it takes, bytes. The open list takes none.
    pub fn bytes(&self) -> u64 {
        let names = |entry: &Acl| entry.identity.scheme.bytes().len() + entry.identity.id.bytes().len();
        let entries = self.0.as_deref().unwrap_or_default();
        entries
            .iter()
            .map(|entry| size_of::<Acl>() + names(entry))
            .sum::<usize>() as u64
    }

    /// Whether `caller` has any of the `wanted` rights. An empty list forbids nothing, and `super` is never refused.
    pub fn permits(&self, wanted: Permissions, caller: &[Identity]) -> bool {
        let Some(entries) = &self.0 else { return true };
        entries.is_empty()
            || caller.iter().any(|identity| is(&identity.scheme, "super"))
            || entries
                .iter()
                .any(|entry| entry.permissions.intersects(wanted) && is_met_by(&entry.identity, caller))
    }
}

/// An entry that shares no memory with the log entry that it came in.
fn copied(entry: &Acl) -> Acl {
    Acl {
        permissions: entry.permissions,
        identity: Identity {
            scheme: entry.identity.scheme.as_str().into(),
            id: entry.identity.id.as_str().into(),
        },
    }
}

fn is(text: &crate::proto::Text, expected: &str) -> bool {
    text.bytes().as_ref() == expected.as_bytes()
}

fn is_met_by(wanted: &Identity, caller: &[Identity]) -> bool {
    if is(&wanted.scheme, "world") {
        return is(&wanted.id, "anyone");
    }
    let mut same_scheme = caller.iter().filter(|identity| identity.scheme == wanted.scheme);
    if is(&wanted.scheme, "ip") {
        let Some(network) = Network::parse(&wanted.id) else {
            return false;
        };
        return same_scheme.any(|identity| network.contains(&identity.id));
    }
    // digest, x509, sasl: the same id; for sasl, `super` is everybody.
    let is_sasl = is(&wanted.scheme, "sasl");
    same_scheme.any(|identity| identity.id == wanted.id || (is_sasl && is(&identity.id, "super")))
}

/// `addr` or `addr/bits`, IPv4 or IPv6.
struct Network {
    address: Address,
    bits: u32,
}

/// An address as a number, left-aligned, so that one mask serves both families.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    V4(u32),
    V6(u128),
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = Address::parse(address)?;
        let most_bits = match address {
            Address::V4(_) => 32,
            Address::V6(_) => 128,
        };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most_bits)?,
            None => most_bits,
        };
        Some(Network { address, bits })
    }

    fn contains(&self, address: &str) -> bool {
        match (self.address, Address::parse(address)) {
            (Address::V4(network), Some(Address::V4(address))) => {
                (network ^ address).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (Address::V6(network), Some(Address::V6(address))) => {
                (network ^ address).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Address {
    fn parse(text: &str) -> Option<Address> {
        if text.contains(':') {
            // Apache does not take an IPv4 address at the end of an IPv6 one.
            let address = text.parse::<Ipv6Addr>().ok().filter(|_| !text.contains('.'));
            return address.map(|address| Address::V6(address.to_bits()));
        }
        // Apache reads each part as a decimal number, leading zeros and all; Rust's own parser refuses those.
        let mut parts = text.split('.');
        let mut address = 0_u32;
        for _ in 0..4 {
            let part: u8 = parts.next()?.parse().ok()?;
            address = address << 8 | u32::from(part);
        }
        parts.next().is_none().then_some(Address::V4(address))
    }
}

/// Bytes that the entries may have that `auth` is replaced by: one for each identity of the caller in place of each `auth` of
/// the list, so that a short request could ask for a list of any length.
const EXPANDED_BYTES: usize = 1 << 20;
/// Bytes of an entry besides its texts: permissions, and a length for each text.
const ENTRY_BYTES: usize = 12;

/// Makes the list that a client asked for into the one that is kept: duplicates removed, `auth` replaced by who the
/// caller is, every other entry checked by its scheme.
///
/// # Errors
/// `InvalidAcl` for an empty list, `auth` without an authenticated identity or with too many, a scheme that is not enabled, an
/// id that its scheme does not accept.
pub(super) fn fix_up(wanted: Option<&[Acl]>, caller: &[Identity], rules: Rules) -> Result<Vec<Acl>, ErrorCode> {
    let wanted = wanted.unwrap_or(&[]);
    let authenticated = || caller.iter().filter(|identity| proves_who(identity, rules));
    let sizes = authenticated().map(|identity| ENTRY_BYTES + identity.scheme.len() + identity.id.len());
    let (identity_bytes, mut expanded_bytes) = (sizes.sum::<usize>(), 0);
    let mut fixed: Vec<Acl> = Vec::with_capacity(wanted.len());
    let mut seen: HashSet<&Acl, foldhash::fast::RandomState> = HashSet::default();
    for entry in wanted {
        // Nearly every list has one entry.
        if wanted.len() > 1 && !seen.insert(entry) {
            continue;
        }
        let Identity { scheme, id } = &entry.identity;
        match scheme.bytes().as_ref() {
            b"world" if is(id, "anyone") => fixed.push(entry.clone()),
            b"auth" => {
                expanded_bytes += identity_bytes;
                if identity_bytes == 0 || expanded_bytes > EXPANDED_BYTES {
                    return Err(ErrorCode::InvalidAcl);
                }
                fixed.extend(authenticated().map(|identity| Acl {
                    permissions: entry.permissions,
                    identity: identity.clone(),
                }));
            }
            b"ip" if Network::parse(id).is_some() => fixed.push(entry.clone()),
            b"digest" if rules.has(Rules::DIGEST_SCHEME) && is_digest_id(id) => fixed.push(entry.clone()),
            b"sasl" if rules.has(Rules::SASL_SCHEME) && is_principal(id) => fixed.push(entry.clone()),
            b"x509" if rules.has(Rules::X509_SCHEME) && is_distinguished_name(id) => fixed.push(entry.clone()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    Ok(fixed)
}

/// Whether an identity says who the caller is; an address does not.
fn proves_who(identity: &Identity, rules: Rules) -> bool {
    match identity.scheme.bytes().as_ref() {
        b"digest" => rules.has(Rules::DIGEST_SCHEME),
        b"sasl" => rules.has(Rules::SASL_SCHEME),
        b"x509" => rules.has(Rules::X509_SCHEME),
        _ => false,
    }
}

/// `user:hash`. Java's `split` forgets empty parts at the end, so that `user:hash:` passes and `user:` does not.
fn is_digest_id(id: &str) -> bool {
    let trimmed = id.trim_end_matches(':');
    trimmed.matches(':').count() == 1
}

/// A Kerberos name: `primary/instance@REALM` with the last two parts optional; without `@` anything goes.
fn is_principal(id: &str) -> bool {
    match id.split_once('@') {
        None => true,
        Some((name, realm)) => name.matches('/').count() <= 1 && !realm.contains(['@', '/']),
    }
}

/// Attributes `type=value` with commas between, which may be escaped. The values are not parsed any further: they are
/// only ever compared.
fn is_distinguished_name(id: &str) -> bool {
    let mut is_escaped = false;
    let mut has_type = false;
    let mut attribute_bytes = 0;
    for character in id.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '=' if attribute_bytes > 0 => has_type = true,
            ',' | ';' if !has_type => return false,
            ',' | ';' => (has_type, attribute_bytes) = (false, 0),
            ' ' => {}
            _ => attribute_bytes += 1,
        }
    }
    has_type && !is_escaped
}

/// Every list in use, once.
#[derive(Debug)]
pub(super) struct AclTable {
    /// By id; `None`: the id is free.
    slots: Vec<Option<Slot>>,
    ids: HashMap<Arc<[Acl]>, AclId, foldhash::fast::RandomState>,
    free: Vec<AclId>,
    /// What all the lists take.
    bytes: u64,
}

#[derive(Debug)]
struct Slot {
    list: AclRef,
    /// How many znodes have it.
    references: u32,
}

/// An ACL record names an id that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadAclId;

impl AclTable {
    pub(super) fn new() -> AclTable {
        AclTable {
            slots: vec![Some(Slot {
                list: AclRef::OPEN,
                references: 1,
            })],
            ids: HashMap::default(),
            free: Vec::new(),
            bytes: 0,
        }
    }

    /// About how much memory the lists take, bytes. Costs nothing.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The list with this id. Ids in znodes are always in use.
    pub(super) fn get(&self, id: AclId) -> &AclRef {
        &self.slots[id.0 as usize]
            .as_ref()
            .unwrap_or_else(|| {
                panic!(
                    "acl {id:?} is in use by a znode, and is not among the {}",
                    self.ids.len()
                )
            })
            .list
    }

    /// The list with this id, if that is in use.
    pub(super) fn find(&self, id: AclId) -> Option<&AclRef> {
        Some(&self.slots.get(id.0 as usize)?.as_ref()?.list)
    }

    /// How many lists are kept besides the open one.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Counts one more znode that has this list. Says whether the list is new.
    pub(super) fn acquire(&mut self, entries: &[Acl]) -> (AclId, bool) {
        if entries == OPEN_LIST {
            return (AclId::OPEN, false);
        }
        if let Some(id) = self.ids.get(entries).copied() {
            self.retain(id);
            return (id, false);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            AclId(u32::try_from(self.slots.len() - 1).expect("there are fewer lists than znodes"))
        });
        self.occupy(id, AclRef::new(entries), 1);
        (id, true)
    }

    /// Counts one more znode that has this list, which others have.
    pub(super) fn retain(&mut self, id: AclId) {
        if id == AclId::OPEN {
            return;
        }
        let slot = self.slots[id.0 as usize].as_mut();
        let slot = slot.unwrap_or_else(|| panic!("acl {id:?} is retained, so it is in use"));
        slot.references += 1;
    }

    /// Counts one znode less. Says whether that was the last, and the list is gone.
    pub(super) fn release(&mut self, id: AclId) -> bool {
        if id == AclId::OPEN {
            return false;
        }
        let slot = &mut self.slots[id.0 as usize];
        let counted = slot
            .as_mut()
            .unwrap_or_else(|| panic!("acl {id:?} is released, so it is in use"));
        counted.references -= 1;
        if counted.references > 0 {
            return false;
        }
        self.bytes -= counted.list.bytes();
        if let Some(list) = &counted.list.0 {
            self.ids.remove(list);
        }
        *slot = None;
        self.free.push(id);
        true
    }

    /// Puts a list back that a checkpoint had, without a znode yet.
    pub(super) fn restore(&mut self, id: AclId, entries: &[Acl]) -> Result<(), BadAclId> {
        let place = id.0 as usize;
        let is_known = self.ids.contains_key(entries) || entries == OPEN_LIST;
        // Ids are given densely and reused, so none is beyond the number of znodes there ever were at once.
        if id == AclId::OPEN || is_known || self.find(id).is_some() || id.0 == u32::MAX {
            return Err(BadAclId);
        }
        while self.slots.len() <= place {
            self.slots.push(None);
        }
        self.occupy(id, AclRef::new(entries), 0);
        Ok(())
    }

    /// After all was restored: lists that no znode has are dropped and told, and ids in between are free.
    pub(super) fn finish_restoring(&mut self) -> Vec<AclId> {
        let mut dropped = Vec::new();
        for place in 1..self.slots.len() {
            if let Some(slot) = &self.slots[place] {
                if slot.references > 0 {
                    continue;
                }
                self.bytes -= slot.list.bytes();
                if let Some(list) = &slot.list.0 {
                    self.ids.remove(list);
                }
                self.slots[place] = None;
                dropped.push(AclId(u32::try_from(place).expect("ids have 32 bits")));
            }
            self.free.push(AclId(u32::try_from(place).expect("ids have 32 bits")));
        }
        dropped
    }

    /// After all was restored, and before every znode that has one of the lists is in memory: each list is kept until it
    /// is released once more. Gives the lists.
    pub(super) fn hold_restored(&mut self) -> Vec<AclId> {
        let mut held = Vec::new();
        for place in 1..self.slots.len() {
            let id = AclId(u32::try_from(place).expect("ids have 32 bits"));
            match &mut self.slots[place] {
                Some(slot) => {
                    slot.references += 1;
                    held.push(id);
                }
                None => self.free.push(id),
            }
        }
        held
    }

    fn occupy(&mut self, id: AclId, list: AclRef, references: u32) {
        let entries = list
            .0
            .clone()
            .expect("the open list has an id of its own, and is never stored");
        self.bytes += list.bytes();
        self.ids.insert(entries, id);
        self.slots[id.0 as usize] = Some(Slot { list, references });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(permissions: Permissions, scheme: &str, id: &str) -> Acl {
        Acl {
            permissions,
            identity: Identity::new(scheme, id),
        }
    }

    const RULES: Rules = Rules(Rules::DIGEST_SCHEME.0);

    #[test]
    fn an_entry_counts_if_any_wanted_bit_is_in_it_and_its_identity_is_the_callers() {
        let digest = Identity::new("digest", "u:h");
        let list = AclRef::new(&[
            entry(Permissions::READ, "world", "anyone"),
            entry(Permissions::ALL, "digest", "u:h"),
            entry(Permissions::WRITE, "ip", "10.1.0.0/16"),
            entry(Permissions::DELETE, "ip", "2001:db8::/32"),
            entry(Permissions::CREATE, "sasl", "alice"),
        ]);
        assert!(list.permits(Permissions::READ, &[]));
        assert!(!list.permits(Permissions::WRITE, &[]));
        assert!(list.permits(Permissions::READ.or(Permissions::ADMIN), &[]));
        assert!(list.permits(Permissions::ADMIN, &[digest]));
        assert!(!list.permits(Permissions::ADMIN, &[Identity::new("digest", "u:other")]));
        assert!(list.permits(Permissions::WRITE, &[Identity::new("ip", "10.1.2.3")]));
        assert!(!list.permits(Permissions::WRITE, &[Identity::new("ip", "10.2.2.3")]));
        assert!(list.permits(Permissions::DELETE, &[Identity::new("ip", "2001:db8:1::1")]));
        assert!(!list.permits(Permissions::DELETE, &[Identity::new("ip", "2001:db9::1")]));
        assert!(list.permits(Permissions::CREATE, &[Identity::new("sasl", "super")]));
        assert!(list.permits(Permissions::ADMIN, &[Identity::new("super", "")]));
        assert!(AclRef::new(&[]).permits(Permissions::ADMIN, &[]));
    }

    #[test]
    fn networks_of_no_bits_hold_every_address_of_their_family() {
        let all = Network::parse("0.0.0.0/0").unwrap();
        assert!(all.contains("255.1.2.3") && !all.contains("::1"));
        for bad in [
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "::1/129",
            "x",
            "",
            "1.2.3.4/",
        ] {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn auth_becomes_who_the_caller_is_and_an_address_is_nobody() {
        let ip = Identity::new("ip", "127.0.0.1");
        let digest = Identity::new("digest", "u:h");
        let wanted = [
            entry(Permissions::READ, "auth", ""),
            entry(Permissions::READ, "auth", ""),
        ];
        assert_eq!(
            fix_up(Some(&wanted), &[ip.clone(), digest], RULES),
            Ok(vec![entry(Permissions::READ, "digest", "u:h")])
        );
        assert_eq!(fix_up(Some(&wanted), &[ip], RULES), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn a_short_list_does_not_become_a_huge_one() {
        let caller: Vec<Identity> = (0..100)
            .map(|number| Identity::new("digest", &format!("{number}:{}", "h".repeat(100))))
            .collect();
        let wanted = |count: i32| (0..count).map(|bits| entry(Permissions(bits), "auth", ""));
        let list: Vec<Acl> = wanted(10).collect();
        assert_eq!(fix_up(Some(&list), &caller, RULES).map(|list| list.len()), Ok(1000));
        let list: Vec<Acl> = wanted(60_000).collect();
        assert_eq!(fix_up(Some(&list), &caller, RULES), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn a_long_list_without_duplicates_is_looked_through_once() {
        // Each compared with each would be 10^10 comparisons: a test that does not end.
        let list: Vec<Acl> = (0..100_000_u32)
            .map(|number| {
                entry(
                    Permissions::READ,
                    "ip",
                    &std::net::Ipv4Addr::from_bits(number).to_string(),
                )
            })
            .collect();
        let twice = [&list[..], &list[..]].concat();
        assert_eq!(fix_up(Some(&twice), &[], RULES), Ok(list));
    }

    #[test]
    fn an_entry_must_name_a_scheme_that_is_enabled_and_an_id_that_it_accepts() {
        let one = |scheme: &str, id: &str| fix_up(Some(&[entry(Permissions::ALL, scheme, id)]), &[], RULES).is_ok();
        for (scheme, id) in [
            ("world", "anyone"),
            ("digest", "u:h"),
            ("digest", ":h"),
            ("digest", "u:h:"),
            ("ip", "::1"),
        ] {
            assert!(one(scheme, id), "{scheme}:{id}");
        }
        for (scheme, id) in [
            ("world", "x"),
            ("digest", "u"),
            ("digest", "u:"),
            ("digest", "a:b:c"),
            ("ip", "localhost"),
            ("sasl", "u"),
            ("x509", "CN=u"),
            ("super", ""),
            ("foo", "bar"),
        ] {
            assert!(!one(scheme, id), "{scheme}:{id}");
        }
        assert_eq!(fix_up(None, &[], RULES), Err(ErrorCode::InvalidAcl));
        assert_eq!(fix_up(Some(&[]), &[], RULES), Err(ErrorCode::InvalidAcl));
        assert!(is_distinguished_name("CN=a\\,b, O=c") && !is_distinguished_name("CN") && !is_distinguished_name(""));
        assert!(is_principal("a/b@R") && is_principal("plain/x/y") && !is_principal("a@b@c"));
    }

    #[test]
    fn a_list_is_kept_once_and_goes_with_its_last_znode() {
        let mut table = AclTable::new();
        let list = [entry(Permissions::READ, "world", "anyone")];
        let (id, is_new) = table.acquire(&list);
        assert_eq!((id, is_new), (AclId(1), true));
        assert_eq!(table.acquire(&list), (id, false));
        assert_eq!(table.acquire(&OPEN_LIST), (AclId::OPEN, false));
        assert!(!table.release(id));
        assert!(table.release(id));
        assert_eq!(table.find(id), None);
        assert_eq!(table.acquire(&list), (id, true));
    }
}
