//! Who may do what: providers, super users, enforcement.

use super::draft::{Draft, Given};
use super::jaas;
use super::key::{Key, Setter};
use super::load::ReadFile;
use super::value::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A way for a client to prove an identity. (`world` and `auth` are not ways to prove one, and always exist.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthProvider {
    /// User name and password.
    Digest,
    /// The address that the client calls from.
    Ip,
    /// The certificate of a TLS client.
    X509,
    /// SASL: DIGEST-MD5 or Kerberos.
    Sasl,
}

impl AuthProvider {
    /// The scheme that stands in ACLs and auth packets.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Ip => "ip",
            Self::X509 => "x509",
            Self::Sasl => "sasl",
        }
    }

    /// Our counterpart of one of ZooKeeper's classes.
    fn of_class(name: &str) -> Option<Self> {
        match name.strip_prefix("org.apache.zookeeper.server.auth.")? {
            "DigestAuthenticationProvider" => Some(Self::Digest),
            "IPAuthenticationProvider" => Some(Self::Ip),
            "X509AuthenticationProvider" => Some(Self::X509),
            "SASLAuthenticationProvider" => Some(Self::Sasl),
            _ => None,
        }
    }
}

/// How a password becomes the hash in a digest identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// ZooKeeper's default since its beginning; every client's helper functions assume it.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA3-256.
    Sha3With256Bits,
}

/// Rights and identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The ways in which clients may authenticate: `ip` always, `digest` unless it is switched off
    /// (`DigestAuthenticationProvider.enabled`), those of `authProvider.N`, and `x509` where there is a TLS port.
    pub providers: BTreeSet<AuthProvider>,
    /// The hash of digest identities (`DigestAuthenticationProvider.digestAlg`). Default SHA1, ZooKeeper's.
    pub digest_algorithm: DigestAlgorithm,
    /// The digest identity `user:hash` that may do everything (`DigestAuthenticationProvider.superDigest`). Default
    /// none.
    pub super_digest: Option<Secret>,
    /// The certificate subject that may do everything (`X509AuthenticationProvider.superUser`). Default none.
    pub x509_super_user: Option<String>,
    /// The SASL users that may do everything (`superUser`, `superUser.N`). Default none.
    pub sasl_super_users: BTreeSet<String>,
    /// Whether no ACL is checked at all (`skipACL`). Default off.
    pub skip_acl: bool,
    /// Where set, a connection that has proven an identity in none of these schemes is refused everything but
    /// authentication (`enforce.auth.enabled` with `enforce.auth.schemes`, or `sessionRequireClientSASLAuth`). Each is
    /// the scheme of one of `providers`; never empty. Default: nobody has to authenticate.
    pub enforced_schemes: Option<BTreeSet<String>>,
    /// SASL.
    pub sasl: Sasl,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            providers: BTreeSet::from([AuthProvider::Digest, AuthProvider::Ip]),
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            x509_super_user: None,
            sasl_super_users: BTreeSet::new(),
            skip_acl: false,
            enforced_schemes: None,
            sasl: Sasl {
                login_context: "Server".to_owned(),
                login_config_file: None,
                users: None,
                allow_failed: false,
            },
        }
    }
}

/// SASL for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The section of the login file that is ours (`sasl.serverconfig`). Default `Server`, ZooKeeper's.
    pub login_context: String,
    /// The login (JAAS) file (`java.security.auth.login.config`). Default none: SASL cannot be used.
    pub login_config_file: Option<PathBuf>,
    /// Users and their passwords, as the section of the login file names them; that of `super` may be another one
    /// (`SASLAuthenticationProvider.superPassword`). `None` where there is no such section: SASL cannot be used.
    pub users: Option<BTreeMap<String, Secret>>,
    /// A connection whose authentication failed goes on without (`allowSaslFailedClients`). Default off, as in
    /// ZooKeeper.
    pub allow_failed: bool,
}

const DIGEST_ALGORITHMS: &str = "SHA1, SHA-256, SHA-512 or SHA3-256";
const SUPER_DIGEST: &str = "expected user:hash, where hash is the base64 form of the digest of user:password";

pub(super) const KEYS: &[Key] = &[
    Key::honoured(
        "authProvider.*",
        "",
        Setter::Parsed {
            form: "the class name of one of ZooKeeper's providers",
            set: set_provider,
        },
        "a further way to authenticate: SASLAuthenticationProvider or X509AuthenticationProvider",
    ),
    Key::honoured(
        "DigestAuthenticationProvider.enabled",
        "true",
        Setter::Lenient(|draft, on| {
            if on {
                draft.config.auth.providers.insert(AuthProvider::Digest);
            } else {
                draft.config.auth.providers.remove(&AuthProvider::Digest);
            }
        }),
        "authentication by user name and password",
    ),
    Key::honoured(
        "DigestAuthenticationProvider.superDigest",
        "",
        // A secret, and checked with the others: the error must not show it.
        Setter::Secret(|draft, text| {
            draft.config.auth.super_digest = Some(Secret::new(text));
            if !text
                .split_once(':')
                .is_some_and(|(user, hash)| !user.is_empty() && !hash.is_empty())
            {
                draft.wrong_secret("DigestAuthenticationProvider.superDigest", SUPER_DIGEST);
            }
        }),
        "the user:hash that may do everything",
    ),
    Key::honoured(
        "DigestAuthenticationProvider.digestAlg",
        "SHA1",
        Setter::Parsed {
            form: DIGEST_ALGORITHMS,
            set: |draft, given| {
                draft.config.auth.digest_algorithm = match given.text.to_ascii_uppercase().as_str() {
                    "SHA1" | "SHA-1" | "SHA" => DigestAlgorithm::Sha1,
                    "SHA-256" => DigestAlgorithm::Sha256,
                    "SHA-512" => DigestAlgorithm::Sha512,
                    "SHA3-256" => DigestAlgorithm::Sha3With256Bits,
                    _ => return Err(format!("expected {DIGEST_ALGORITHMS}")),
                };
                Ok(())
            },
        },
        "the hash of digest identities",
    ),
    Key::honoured(
        "X509AuthenticationProvider.superUser",
        "",
        Setter::Text(|draft, user| draft.config.auth.x509_super_user = Some(user.to_owned())),
        "the certificate subject that may do everything",
    ),
    Key::honoured(
        "superUser",
        "",
        Setter::Text(|draft, user| {
            draft.config.auth.sasl_super_users.insert(user.to_owned());
        }),
        "a SASL user that may do everything",
    ),
    Key::honoured(
        "superUser.*",
        "",
        Setter::Text(|draft, user| {
            draft.config.auth.sasl_super_users.insert(user.to_owned());
        }),
        "a further SASL user that may do everything",
    ),
    Key::honoured(
        "skipACL",
        "no",
        Setter::YesNo {
            otherwise: false,
            set: |draft, on| draft.config.auth.skip_acl = on,
        },
        "check no ACL at all",
    ),
    Key::honoured(
        "enforce.auth.enabled",
        "false",
        Setter::Lenient(|draft, on| draft.pending.enforce_auth = on),
        "clients have to authenticate before anything else, with one of enforce.auth.schemes",
    ),
    Key::honoured(
        "enforce.auth.schemes",
        "",
        Setter::Text(|draft, schemes| {
            let schemes = schemes.split(',').map(str::trim).filter(|scheme| !scheme.is_empty());
            draft.pending.enforced_schemes = schemes.map(str::to_owned).collect();
        }),
        "the schemes of enforce.auth.enabled, separated by commas",
    ),
    Key::honoured(
        "sessionRequireClientSASLAuth",
        "false",
        Setter::Lenient(|draft, on| draft.pending.require_sasl = on),
        "clients have to authenticate with SASL before anything else",
    ),
    Key::honoured(
        "sasl.serverconfig",
        "Server",
        Setter::Text(|draft, section| draft.config.auth.sasl.login_context = section.to_owned()),
        "the section of the login file that is this server's",
    ),
    Key::honoured(
        "java.security.auth.login.config",
        "",
        Setter::Text(|draft, path| draft.config.auth.sasl.login_config_file = Some(PathBuf::from(path))),
        "the login (JAAS) file: SASL users and their passwords",
    ),
    Key::honoured(
        "SASLAuthenticationProvider.superPassword",
        "",
        Setter::Secret(|draft, text| draft.pending.sasl_super_password = Some(Secret::new(text))),
        "the password of the SASL user super, instead of that in the login file",
    ),
    Key::honoured(
        "allowSaslFailedClients",
        "false",
        Setter::Lenient(|draft, on| draft.config.auth.sasl.allow_failed = on),
        "a connection whose SASL authentication failed goes on without an identity",
    ),
];

/// Reads the login file.
///
/// A missing file is an error, a missing section is not, as in ZooKeeper: many share one file between programs.
pub(super) fn check_sasl(draft: &mut Draft, read: ReadFile<'_>) {
    const FILE: &str = "java.security.auth.login.config";
    let Some(path) = draft.config.auth.sasl.login_config_file.clone() else {
        return;
    };
    let sections = match read(&path) {
        Ok(Some(text)) => jaas::parse(&text).map_err(|error| format!("it is no login file: {error}")),
        Ok(None) => Err("there is no such file".to_owned()),
        Err(error) => Err(format!("the file cannot be read: {error}")),
    };
    let mut sections = match sections {
        Ok(sections) => sections,
        Err(message) => return draft.wrong(FILE, message),
    };
    let section = draft.config.auth.sasl.login_context.clone();
    let Some(modules) = sections.remove(&section) else {
        return draft.warn_about(
            FILE,
            format!("it has no section {section}: clients cannot authenticate with SASL"),
        );
    };
    if let Some(kerberos) = modules.iter().find(|module| module.is_kerberos()) {
        return draft.warn_about(
            FILE,
            format!(
                "the section {section} asks for {}: Kerberos is not available here, clients cannot authenticate with \
                 SASL; use org.apache.zookeeper.server.auth.DigestLoginModule",
                kerberos.class
            ),
        );
    }
    let mut users: BTreeMap<String, Secret> = modules
        .into_iter()
        .flat_map(|module| module.options)
        .filter_map(|(name, password)| Some((name.strip_prefix("user_")?.to_owned(), password)))
        .collect();
    let super_password = draft.pending.sasl_super_password.take();
    if let (Some(of_super), Some(password)) = (users.get_mut("super"), super_password) {
        *of_super = password;
    }
    draft.config.auth.sasl.users = Some(users);
}

/// ZooKeeper logs a class that it cannot load and goes on without it; whoever enforces its scheme gets an error.
fn set_provider(draft: &mut Draft, given: &Given) -> Result<(), String> {
    match AuthProvider::of_class(&given.text) {
        Some(provider) => {
            draft
                .pending
                .auth_providers
                .insert(given.suffix("authProvider.").to_owned(), provider);
        }
        None if given.text.is_empty() => return Err("expected the class name of one of ZooKeeper's providers".into()),
        None => draft.warn(
            given,
            format!("there is no provider {:?} here; it is not available", given.text),
        ),
    }
    Ok(())
}
