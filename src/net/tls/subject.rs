//! The subject of a certificate as text: the form of RFC 2253, as Java's `X500Principal.getName()` writes it, since it is
//! what stands in ACLs and in `X509AuthenticationProvider.superUser`.
//!
//! The last part comes first (`CN=client,O=Example,C=DE`). A part of a kind that RFC 2253 has no name for is written as
//! its number and the hexadecimal form of its value.

use std::fmt::Write as _;
use x509_parser::asn1_rs::{Tag, ToDer as _};
use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// The names that RFC 2253 has.
const NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];
/// The kinds of strings that are written as text.
const TEXTS: &[Tag] = &[
    Tag::Utf8String,
    Tag::PrintableString,
    Tag::T61String,
    Tag::Ia5String,
    Tag::GeneralString,
    Tag::BmpString,
    Tag::UniversalString,
];

/// The name as text.
pub(super) fn render(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let name = NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    match name {
        Some(name) if TEXTS.contains(&value.tag()) => {
            format!("{name}={}", escape(&String::from_utf8_lossy(value.data)))
        }
        _ => {
            let mut text = format!("{}=#", name.unwrap_or(&number));
            for byte in value.to_der_vec().unwrap_or_default() {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

fn escape(value: &str) -> String {
    let is_blank = |c: char| c == ' ' || c == '\r';
    let lead = value.len() - value.trim_start_matches(is_blank).len();
    let trail = value.trim_end_matches(is_blank).len();
    let mut text = String::with_capacity(value.len());
    for (position, c) in value.char_indices() {
        if c == '\0' {
            text.push_str("\\00");
            continue;
        }
        if ",=+<>#;\"\\".contains(c) || position < lead || position >= trail {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn rendered(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params
                .distinguished_name
                .push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        render(certificate.subject())
    }

    #[test]
    fn the_last_part_comes_first_with_the_names_of_rfc_2253() {
        let name = rendered(&[
            (DnType::CountryName, "DE"),
            (DnType::StateOrProvinceName, "Bayern"),
            (DnType::LocalityName, "München"),
            (DnType::OrganizationName, "Zoo"),
            (DnType::OrganizationalUnitName, "Keepers"),
            (DnType::CommonName, "client"),
        ]);
        assert_eq!(name, "CN=client,OU=Keepers,O=Zoo,L=München,ST=Bayern,C=DE");
    }

    #[test]
    fn signs_with_a_meaning_and_blanks_at_the_ends_are_escaped() {
        let name = rendered(&[(DnType::CommonName, " a, b+c=\"d\\e\"<f>;#  ")]);
        assert_eq!(name, r#"CN=\ a\, b\+c\=\"d\\e\"\<f\>\;\#\ \ "#);
        assert_eq!(rendered(&[(DnType::CommonName, "  ")]), r"CN=\ \ ");
    }

    #[test]
    fn a_kind_without_a_name_is_written_as_its_number_and_its_bytes() {
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(rendered(&[(email, "a@b")]), "1.2.840.113549.1.9.1=#0c03614062");
    }
}
