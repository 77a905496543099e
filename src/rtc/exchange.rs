//! A struct with one field of another type: how what cannot leave its thread is taken out of a session, and put in again.

/// `exchange!(value => Struct { field: new, others, … })` is `value` with `field`, which `new` may use, exchanged. Rust's
/// update syntax keeps types; here every field is named once, and one that is forgotten does not compile.
macro_rules! exchange {
    ($value:expr => $Struct:ident { $field:ident: $new:expr, $($kept:ident),+ $(,)? }) => {{
        let $Struct { $field, $($kept),+ } = $value;
        $Struct { $field: $new, $($kept),+ }
    }};
}

pub(super) use exchange;
