//! What is known about an option besides its parsed value.

/// An option as declared.
#[derive(Debug)]
pub struct OptionSpec {
    /// `section.name`, as in the file.
    pub key: &'static str,
    /// Its description, one entry a line, as written in the declaration.
    pub doc: &'static [&'static str],
    /// The default in the same spelling as an environment variable takes. Empty: not set.
    pub default: &'static str,
    /// Smallest and largest value, both allowed.
    pub range: Option<(&'static str, &'static str)>,
    /// A value for the reference file to show where there is no default.
    pub example: &'static str,
    /// The flag without its dashes, when it is not simply the key with dashes.
    pub short_flag: Option<&'static str>,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// Renders a value (default, example) as TOML.
    pub to_toml: fn(&str) -> Option<String>,
}

/// Options that belong together: a table of the file.
#[derive(Debug)]
pub struct SectionSpec {
    /// The table's name.
    pub name: &'static str,
    /// Its description.
    pub doc: &'static [&'static str],
    /// Its options.
    pub options: &'static [OptionSpec],
}

/// The namespace of our environment variables.
pub(super) const ENVIRONMENT_PREFIX: &str = "GANTRY_";

impl OptionSpec {
    /// The environment variable: `store.flush` is `GANTRY_STORE_FLUSH`.
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The flag without its dashes: `store.flush` would be `store-flush`, had it no shorter one.
    pub fn flag(&self) -> String {
        self.short_flag.map_or_else(|| self.key.replace(['.', '_'], "-"), str::to_owned)
    }

    /// The key without its section.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// Declares all options: expands to the parsed tree (`Config` and one struct per section), to `SECTIONS`, and to
/// `Config::resolve`. The documentation of a field is the description of its option.
macro_rules! options {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty = $default:literal $({ $($attribute:ident: $value:expr),+ })?;
            )+
        }
    )+) => {
        /// The values of all options, one part per section.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $field: $Type, )+
            }
        )+

        /// Every option, in the order of the reference file.
        pub static SECTIONS: &[$crate::config::SectionSpec] = &[$(
            $crate::config::SectionSpec {
                name: stringify!($section),
                doc: &[$($section_doc),+],
                options: &[$(
                    $crate::config::OptionSpec {
                        key: concat!(stringify!($section), ".", stringify!($field)),
                        doc: &[$($doc),+],
                        default: $default,
                        value_name: <$Type as $crate::config::value::Value>::NAME,
                        to_toml: $crate::config::value::text_to_toml::<$Type>,
                        $($($attribute: $value,)+)?
                        ..$crate::config::option::PLAIN
                    }
                ),+],
            }
        ),+];

        impl Config {
            /// Takes every option's value from the layers.
            pub(super) fn resolve(resolver: &mut $crate::config::resolver::Resolver) -> Config {
                Config {
                    $( $section: $Section {
                        $( $field: resolver.value::<$Type>(concat!(stringify!($section), ".", stringify!($field))), )+
                    }, )+
                }
            }
        }
    };
}
pub(super) use options;

/// What a declaration leaves out.
pub(super) const PLAIN: OptionSpec = OptionSpec {
    key: "",
    doc: &[],
    default: "",
    range: None,
    example: "",
    short_flag: None,
    value_name: "",
    to_toml: |_| None,
};
