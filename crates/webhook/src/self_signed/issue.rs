//! CAs and serving certificates, made.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{CLOCK_SKEW, SelfSignedError};
use listener::certificate::{Pem, Validity};

/// A new CA that is valid for `lifetime` from `now`.
pub(super) fn authority(now: SystemTime, lifetime: Duration) -> Result<Pem, SelfSignedError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Two CAs are in one bundle while one follows the other; Go finds the right one by its name and
    // key identifier.
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let name = format!("image-cri-shim webhook CA {}", since.as_secs());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    valid(&mut params, now, lifetime);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pem {
        chain: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A new serving certificate for `names`, signed by `authority`, valid for `lifetime` from `now`, but not
/// longer than its CA.
pub(super) fn serving(
    authority: &Pem,
    names: &[String],
    now: SystemTime,
    lifetime: Duration,
) -> Result<Pem, SelfSignedError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.chain, KeyPair::from_pem(&authority.key)?)?;
    let mut params = CertificateParams::new(names)?;
    if let Some(name) = names.first() {
        // A common name has 64 characters at most; the names that count are the alternative ones.
        let name: String = name.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let most = Validity::of(&authority.chain)?.to.duration_since(now);
    valid(&mut params, now, lifetime.min(most.unwrap_or_default()));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pem {
        chain: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
}
