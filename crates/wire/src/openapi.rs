//! Schemas of what travels as text, for the description of an HTTP interface. Other types derive theirs.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{ArrayBuilder, Type},
    },
};

use crate::{
    Base64, Cursor, Digest, DnsName, EnvelopeId, GroupId, KeyId, Kind, NameSet, PoolName, ProblemKind, ProfileName,
    RotationId, SignerId, Upstream,
};

macro_rules! texts {
    ($($name:ident: $pattern:literal, $example:literal;)*) => {
        $(impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern));
                text.examples([$example]).build().into()
            }
        }

        impl ToSchema for $name {})*
    };
}

texts! {
    Base64: "^[A-Za-z0-9_-]*$", "AAEC";
    Cursor: "^[0-9a-f]{32}:[0-9]{1,19}$", "0123456789abcdef0123456789abcdef:42";
    DnsName: r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\.){1,4}[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", "shop.example.com";
    Kind: "^[a-z0-9-]{1,32}$", "bundle";
    PoolName: "^[a-z][a-z0-9-]{0,31}$", "eu";
    ProfileName: r"^[A-Za-z0-9_.-]{1,64}$", "tlsserver";
    ProblemKind: "^(urn:certseal:[a-z-]+|about:blank)$", "urn:certseal:conflict";
    Upstream: "^https?://", "http://10.0.0.1:8080";
    Digest: "^[0-9a-f]{64}$", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    EnvelopeId: "^[0-9a-f]{32}$", "0123456789abcdef0123456789abcdef";
    GroupId: "^[0-9a-f]{32}$", "0123456789abcdef0123456789abcdef";
    RotationId: "^[0-9a-f]{32}$", "0123456789abcdef0123456789abcdef";
    KeyId: "^[0-9a-f]{32}$", "0123456789abcdef0123456789abcdef";
    SignerId: "^[0-9a-f]{32}$", "0123456789abcdef0123456789abcdef";
}

impl PartialSchema for NameSet {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(DnsName::schema()).min_items(Some(1)).max_items(Some(100)).build().into()
    }
}

impl ToSchema for NameSet {}
