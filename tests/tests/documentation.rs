//! What the documentation names is there: files, items of the code, settings, commands and their flags, and what its links
//! point to. Reads every markdown file of the repository; needs no network.
//!
//! How a text is read, so that writers know what is checked in `code like this`:
//! - A path (`store/src/apply.rs`, a folder with a `/` at its end, `*` for any part of a name) is there. `path#word`: the
//!   word is in that file. Files of a data folder are written with `DATA/` in front, and are not looked for.
//! - A name of the code (`LogOffset`, `begin_epoch`, `Tail::lock`) is a word of some source.
//! - In `docs/operations.md`, "what stands in quotes" is what the program says: it is in a source, word by word.
//! - A setting (`store.flush`, also `store.flush = "async"`) and a variable (`GANTRY_…`) are in the configuration reference.
//! - `gantry …` is a command with these flags, `--flag` a flag of some command; `cargo …` names packages, tests, binaries,
//!   examples and profiles that are there. So do lines of code blocks that begin so.
//! - After a line `$ gantry inspect …` of a code block stands what it prints; a line with `…` alone stands for any lines.
//! - A line of a code block that begins like one of `hexdump -C` shows the bytes of a golden file, at that place.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are built or fetched.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "fixtures"];
/// Endings of what is looked at for names of the code.
const SOURCES: [&str; 6] = [".rs", ".proto", ".toml", ".py", ".txt", "/run"];
/// Written for users of one program: their flags are not those of `gantry`.
const OWN_FLAGS: [&str; 2] = ["tests/clients/README.md", "report/json.md"];

/// Quotes what the program says.
const SAYS: &str = "docs/operations.md";

/// What there is to be named.
struct Project {
    /// All files, relative to the top.
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
    texts: BTreeMap<String, String>,
    /// Every word of every source.
    words: HashSet<String>,
    /// All programs, with texts that go over several lines in one.
    programs: String,
    settings: BTreeSet<String>,
    sections: BTreeSet<String>,
    packages: BTreeSet<String>,
    known_help: RefCell<HashMap<String, Help>>,
    /// The golden files of the store.
    golden: Vec<Vec<u8>>,
}

/// What `gantry … --help` says.
#[derive(Clone, Debug, Default)]
struct Help {
    commands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

/// One markdown file, taken apart.
#[derive(Debug, Default)]
struct Markdown {
    /// `Code in a line`, with the number of the line.
    spans: Vec<(usize, String)>,
    /// Lines of code blocks.
    code: Vec<(usize, String)>,
    links: Vec<(usize, String)>,
    /// "Between quotes", outside of code.
    quotes: Vec<(usize, String)>,
    /// As links name them.
    headings: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn what_the_documentation_names_is_there() {
    let project = Project::read(&root());
    let documents: Vec<_> = project.texts.keys().filter(|file| file.ends_with(".md")).cloned().collect();
    for wanted in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/formats.md",
        "docs/glossary.md",
        "docs/operations.md",
    ] {
        assert!(documents.iter().any(|file| file == wanted), "{wanted} is missing");
    }
    let wrong: Vec<String> = documents.iter().flat_map(|file| project.check(file, &project.texts[file])).collect();
    assert!(wrong.is_empty(), "{} things are named that are not there:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whoever adds a line to the log at the level of errors says in `docs/operations.md` what it means and what to do.
#[test]
fn each_error_line_is_explained() {
    let project = Project::read(&root());
    // A short one would be found in too many lines.
    let mut explained = Markdown::parse(&project.texts[SAYS]).quotes;
    explained.retain(|(_, quote)| quote.len() > 8);
    let tiers = ["store/src/", "controller/src/", "link/src/", "proxy/src/", "deploy/src/"];
    let sources = project.texts.iter().filter(|(file, _)| tiers.iter().any(|tier| file.starts_with(tier)));
    let (mut lines, mut unexplained) = (0, Vec::new());
    for (file, text) in sources.filter(|(file, _)| file.ends_with(".rs")) {
        for line in error_lines(&joined(text)) {
            lines += 1;
            if !explained.iter().any(|(_, quote)| line.contains(quote.as_str())) {
                unexplained.push(format!("{file}: {line}"));
            }
        }
    }
    assert!(lines > 20, "{lines} lines were found");
    assert!(unexplained.is_empty(), "{SAYS} quotes nothing of these lines:\n{}", unexplained.join("\n"));
}

/// What a source logs as errors: the longest text of each call.
fn error_lines(source: &str) -> Vec<String> {
    let calls = source.split("tracing::error!(").skip(1);
    let longest = |call: &str| {
        let texts = arguments(call).split('"').skip(1).step_by(2).map(str::to_owned);
        texts.max_by_key(String::len).filter(|text| text.contains(' '))
    };
    calls.filter_map(longest).collect()
}

/// Up to the bracket that ends a call.
fn arguments(call: &str) -> &str {
    let (mut depth, mut in_text) = (1, false);
    let ends = |(_, c): &(usize, char)| {
        match c {
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => depth -= 1,
            _ => {}
        }
        depth == 0
    };
    call.char_indices().find(ends).map_or(call, |(end, _)| &call[..end])
}

/// The files of each way are counted, and none is opened twice.
#[test]
fn the_ways_through_the_code_are_as_long_as_they_say() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("there is an architecture");
    let ways: Vec<&str> = text.split("\n## The way of ").skip(1).collect();
    assert_eq!(ways.len(), 3, "of a message, of an acknowledgement, of a metadata change");
    for way in ways {
        let (list, rest) = way.split_once("\nThat is ").expect("each way is counted");
        let said: usize = rest.split(' ').next().and_then(|count| count.parse().ok()).expect("in a number");
        let steps = list.lines().filter(|line| starts_block(line));
        let files: Vec<&str> = steps.filter_map(|line| line.split('`').nth(1)).collect();
        let once: BTreeSet<_> = files.iter().collect();
        assert_eq!((files.len(), once.len()), (said, said), "{files:?}");
    }
}

#[test]
fn what_is_not_there_is_noticed() {
    let project = Project::read(&root());
    for (text, complaint) in [
        ("see `store/src/no_such_file.rs`", "no file store/src/no_such_file.rs"),
        ("see `no_such_file.rs`", "no file no_such_file.rs"),
        ("see `store/src/nothing/`", "no folder store/src/nothing/"),
        ("see `store/src/nothing-*.rs`", "no file store/src/nothing-*.rs"),
        ("see `store/src/lib.rs#NoSuchThing`", "no NoSuchThing in store/src/lib.rs"),
        ("a `NoSuchThing` is", "no source has the word NoSuchThing"),
        ("`CommitLog::no_such_call` is", "no source has the word no_such_call"),
        ("`no_such_call()` is", "no source has the word no_such_call"),
        ("set `store.flash`", "no setting store.flash"),
        ("set `store.flash = \"sync\"`", "no setting store.flash"),
        ("set `GANTRY_STORE_FLASH`", "no source has the word GANTRY_STORE_FLASH"),
        ("run `gantry admin cluster explode`", "no command `gantry admin cluster explode`"),
        ("run `gantry proxy|shop`", "no command `gantry shop`"),
        ("run\n\n    gantry inspect verify --loudly DATA", "no flag --loudly of `gantry inspect verify`"),
        ("run\n\n```sh\n$ gantry bench produse\n```", "no command `gantry bench produse`"),
        ("with `--no-such-flag`", "no flag --no-such-flag"),
        ("run `cargo test -p gantry-shop`", "no package gantry-shop"),
        ("run `cargo test -p gantry-store --test no_such_test`", "no test no_such_test"),
        ("run `cargo run --profile fast --bin gantry`", "no profile fast"),
        ("run `cargo run --bin gantry-shop`", "no program gantry-shop"),
        ("so:\n\n    00000008  01 00 00 00 ff ff ff ff  not so", "no golden file has these bytes at 0x8"),
        (
            "so:\n\n    $ gantry inspect identity store/tests/fixtures/v1/folder\n    …\n    its name is unknown\n    …",
            "it does not print so: its name is unknown",
        ),
        ("so:\n\n    $ gantry inspect identity store/tests/fixtures/v1/folder", "it prints more"),
        ("a [link](docs/no-such-page.md)", "no file docs/no-such-page.md"),
        ("a [link](#no-such-heading)\n# Another", "no heading #no-such-heading"),
    ] {
        let found = project.check("README.md", text);
        assert_eq!(found, [format!("README.md:{}: {complaint}", line_of(text))], "{text}");
    }
    let said = project.check(SAYS, "It says \"the store is busy\", and \"the store is lazy\".");
    assert_eq!(said, ["docs/operations.md:1: no program says \"the store is lazy\""]);
    let fine = "\
# All of this is there
`store/src/lib.rs`, `store/src/lib.rs#StoreFolder`, `store/src/`, `store/src/commit_log/*.rs`, `LogOffset`, `begin_epoch`,
`store.flush = \"async\"`, `GANTRY_STORE_FLUSH`, `gantry`, `gantry proxy|store`, `gantry inspect …`, `--store-flush`,
`gantry admin topic create orders --type normal # why`, `cargo test -p gantry-store --test crash`, `DATA/store/positions`,
`cargo run --profile sim -p gantry-simulation --bin gantry-sim -- --seeds 3`, [here](README.md), [above](#all-of-this-is-there)
";
    assert_eq!(project.check("README.md", &fine.replace("--store-flush", "--flush")), Vec::<String>::new());
}

/// The line that the mistake of an example is in: the last, or the only one.
fn line_of(text: &str) -> usize {
    let mistaken = |line: &str| {
        line.contains("gantry ")
            || line.starts_with("    0")
            || line.contains('`') && !line.starts_with("```")
            || line.contains("](")
    };
    text.lines().position(mistaken).map_or(1, |line| line + 1)
}

impl Project {
    fn read(top: &Path) -> Project {
        let mut project = Project {
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            texts: BTreeMap::new(),
            words: HashSet::new(),
            programs: String::new(),
            settings: BTreeSet::new(),
            sections: BTreeSet::new(),
            packages: BTreeSet::new(),
            known_help: RefCell::default(),
            golden: Vec::new(),
        };
        project.walk(top, "");
        let golden = project.files.iter().filter(|file| file.starts_with("store/tests/fixtures/v1/"));
        project.golden = golden.map(|file| fs::read(top.join(file)).expect("a golden file can be read")).collect();
        for (file, text) in project.texts.iter().filter(|(file, _)| SOURCES.iter().any(|end| file.ends_with(end))) {
            // What this test itself names as missing is not there because of that.
            if file != "tests/tests/documentation.rs" {
                project.words.extend(words(text).map(str::to_owned));
                if file.ends_with(".rs") {
                    project.programs.push_str(&joined(text));
                }
            }
            if file.ends_with("Cargo.toml") {
                let name = text.lines().find_map(|line| line.strip_prefix("name = "));
                project.packages.extend(name.map(|name| name.trim_matches('"').to_owned()));
            }
        }
        let mut section = String::new();
        for line in project.texts["deploy/config/gantry.toml"].lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                project.sections.insert(section.clone());
            } else if let Some((name, _)) = line.strip_prefix('#').and_then(|rest| rest.split_once(" = "))
                && is_word(name)
            {
                project.settings.insert(format!("{section}.{name}"));
            }
        }
        assert!(project.settings.len() > 20 && project.words.len() > 1000, "the project was not read");
        project
    }

    fn walk(&mut self, dir: &Path, prefix: &str) {
        for entry in fs::read_dir(dir).expect("a folder of the project").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if name == ".git" || name == "target" || name == "node_modules" {
                    continue;
                }
                self.folders.insert(format!("{path}/"));
                self.walk(&entry.path(), &format!("{path}/"));
                continue;
            }
            let is_text = path.ends_with(".md") || SOURCES.iter().any(|end| path.ends_with(end));
            if is_text && !NOT_OURS.iter().any(|folder| path.contains(&format!("{folder}/"))) {
                self.texts.extend(fs::read_to_string(entry.path()).map(|text| (path.clone(), text)));
            }
            self.files.insert(path);
        }
    }

    /// What `text`, which lies at `file`, names and is not there.
    fn check(&self, file: &str, text: &str) -> Vec<String> {
        let markdown = Markdown::parse(text);
        let own_flags = OWN_FLAGS.iter().any(|end| file.ends_with(end));
        let mut wrong = Vec::new();
        let mut note = |line: usize, complaint: Option<String>| {
            wrong.extend(complaint.map(|complaint| format!("{file}:{line}: {complaint}")));
        };
        for (line, span) in &markdown.spans {
            note(*line, self.check_span(file, span, own_flags));
        }
        for (line, code) in &markdown.code {
            note(*line, self.check_command(code.trim().trim_start_matches("$ ")));
            note(*line, self.check_dump(code));
            note(*line, check_output(code.trim(), markdown.code.iter().filter(|(next, _)| next > line)));
        }
        for (line, quote) in markdown.quotes.iter().filter(|_| file == SAYS) {
            let said = self.programs.contains(quote.as_str());
            note(*line, (!said).then(|| format!("no program says \"{quote}\"")));
        }
        for (line, link) in &markdown.links {
            note(*line, self.check_link(file, link, &markdown));
        }
        wrong
    }

    fn check_span(&self, file: &str, span: &str, own_flags: bool) -> Option<String> {
        let first = span.split_whitespace().next()?;
        if first == "gantry" || first == "cargo" {
            return self.check_command(span);
        }
        if first.starts_with("--") && first.len() > 2 {
            let flag = first.trim_end_matches([',', ';']).split('=').next().unwrap_or_default();
            return (!own_flags && !self.is_flag(flag)).then(|| format!("no flag {flag}"));
        }
        if let Some((section, _)) = first.split_once('.')
            && self.sections.contains(section)
            && !first.contains('/')
            && first.split('.').count() == 2
            && !is_file_name(first)
        {
            return (!self.settings.contains(first)).then(|| format!("no setting {first}"));
        }
        if span.contains(char::is_whitespace) {
            return None;
        }
        if let Some((path, word)) = span.split_once('#').filter(|(path, _)| is_file_name(path)) {
            let Some(text) = self.texts.get(path) else { return Some(format!("no file {path}")) };
            return (!words(text).any(|found| found == word)).then(|| format!("no {word} in {path}"));
        }
        if self.is_path(span) {
            return self.check_path(file, span);
        }
        let name = span.trim_end_matches("()").trim_end_matches("(..)");
        if name.split("::").all(is_word) {
            let checked = |part: &&str| {
                !is_placeholder(part) && part.contains('_') || is_camel(part) || name.contains("::") || name != span
            };
            let missing = name.split("::").filter(checked).find(|part| !self.words.contains(*part));
            return missing.map(|word| format!("no source has the word {word}"));
        }
        None
    }

    /// Whether a text is meant as the path of a file or a folder of the project.
    fn is_path(&self, text: &str) -> bool {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*+".contains(c));
        let top = text.split('/').next().unwrap_or_default();
        let within = text.contains('/') && (self.folders.contains(&format!("{top}/")) || text.starts_with("./"));
        plain && (within || is_file_name(text)) && !text.starts_with('/')
    }

    fn check_path(&self, file: &str, path: &str) -> Option<String> {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let places = [path.to_owned(), resolve(folder, path)];
        let there = |all: &BTreeSet<String>| places.iter().any(|place| all.iter().any(|one| matches(place, one)));
        match path.ends_with('/') {
            true => (!there(&self.folders)).then(|| format!("no folder {path}")),
            false => {
                let folders = places.iter().any(|place| self.folders.contains(&format!("{place}/")));
                (!folders && !there(&self.files)).then(|| format!("no file {path}"))
            }
        }
    }

    fn check_link(&self, file: &str, link: &str, markdown: &Markdown) -> Option<String> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = resolve(folder, path);
        let is_there =
            self.files.contains(&target) || self.folders.contains(&format!("{}/", target.trim_end_matches('/')));
        if !path.is_empty() && !is_there {
            return Some(format!("no file {target}"));
        }
        if heading.is_empty() {
            return None;
        }
        let other = self.texts.get(&target).filter(|_| !path.is_empty()).map(|text| Markdown::parse(text));
        let headings = other.as_ref().map_or(&markdown.headings, |other| &other.headings);
        (!headings.contains(heading)).then(|| format!("no heading #{heading}"))
    }

    /// A line of a shell, as far as it names something of ours.
    fn check_command(&self, line: &str) -> Option<String> {
        let words: Vec<&str> =
            line.split_whitespace().take_while(|word| !["#", "|", "&&", ";"].contains(word)).collect();
        match words.split_first() {
            Some((&"gantry", arguments)) => self.check_gantry(arguments),
            Some((&"cargo", arguments)) => self.check_cargo(arguments),
            _ => None,
        }
    }

    /// A line of a dump, with words behind it.
    fn check_dump(&self, line: &str) -> Option<String> {
        let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let (at, rest) = line.trim_start().split_once("  ").filter(|(at, _)| hex(at, 8))?;
        let at = usize::from_str_radix(at, 16).ok()?;
        let bytes = rest.split_whitespace().take_while(|word| hex(word, 2)).map(|word| u8::from_str_radix(word, 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
        let is_there = |file: &Vec<u8>| file.get(at..at + bytes.len()).is_some_and(|there| *there == bytes[..]);
        let missing = bytes.is_empty() || !self.golden.iter().any(is_there);
        missing.then(|| format!("no golden file has these bytes at {at:#x}"))
    }

    fn check_gantry(&self, arguments: &[&str]) -> Option<String> {
        let mut path: Vec<&str> = Vec::new();
        let mut help = self.help(&path);
        let mut open = true;
        for argument in arguments {
            let argument = argument.trim_matches(['[', ']', '(', ')', ',', ';', '.']);
            if let Some(flag) = argument.strip_prefix("--") {
                open = false;
                let flag = format!("--{}", flag.split('=').next().unwrap_or_default());
                if !help.flags.contains(&flag) {
                    return Some(format!("no flag {flag} of `gantry {}`", path.join(" ")));
                }
            } else if open && !help.commands.is_empty() && !["…", "...", ""].contains(&argument) {
                let alternatives: Vec<&str> = argument.split('|').collect();
                if let Some(unknown) = alternatives.iter().find(|name| !help.commands.contains(**name)) {
                    return Some(format!("no command `gantry {}`", [&path[..], &[*unknown]].concat().join(" ")));
                }
                path.push(alternatives[0]);
                help = self.help(&path);
            } else {
                open = false;
            }
        }
        None
    }

    fn check_cargo(&self, arguments: &[&str]) -> Option<String> {
        let ours: Vec<&str> = arguments.iter().copied().take_while(|argument| *argument != "--").collect();
        for pair in ours.windows(2) {
            let name = pair[1].trim_matches(['[', ']']);
            let is_file = |ends: [String; 2]| self.files.iter().any(|file| ends.iter().any(|end| file.ends_with(end)));
            let known = match pair[0] {
                "-p" => self.packages.contains(name).then_some(()).ok_or("package"),
                "--test" => {
                    is_file([format!("/tests/{name}.rs"), format!("/tests/{name}/main.rs")]).then_some(()).ok_or("test")
                }
                "--bin" => {
                    let named = format!("name = \"{name}\"");
                    let is_named =
                        self.texts.iter().any(|(file, text)| file.ends_with("Cargo.toml") && text.contains(&named));
                    (is_named || is_file([format!("/src/bin/{name}.rs"), format!("/src/bin/{name}/main.rs")]))
                        .then_some(())
                        .ok_or("program")
                }
                "--example" => is_file([format!("/examples/{name}.rs"), format!("/examples/{name}/main.rs")])
                    .then_some(())
                    .ok_or("example"),
                "--profile" => {
                    self.texts["Cargo.toml"].contains(&format!("[profile.{name}]")).then_some(()).ok_or("profile")
                }
                _ => Ok(()),
            };
            if let Err(what) = known {
                return Some(format!("no {what} {name}"));
            }
        }
        None
    }

    fn help(&self, path: &[&str]) -> Help {
        let mut known = self.known_help.borrow_mut();
        let help = known.entry(path.join(" ")).or_insert_with(|| Help::parse(&gantry_tests::help(path)));
        help.clone()
    }

    /// A flag of some command of `gantry`, or of the programs of the simulation.
    fn is_flag(&self, flag: &str) -> bool {
        let field = format!(" {}: ", flag.trim_start_matches("--").replace('-', "_"));
        let simulation = ["tests/simulation/src/runner.rs"].iter().any(|file| self.texts[*file].contains(&field));
        simulation || self.some_command_has(&[], flag)
    }

    fn some_command_has(&self, path: &[&str], flag: &str) -> bool {
        let help = self.help(path);
        help.flags.contains(flag)
            || help.commands.iter().any(|command| self.some_command_has(&[path, &[command.as_str()]].concat(), flag))
    }
}

impl Help {
    fn parse(text: &str) -> Help {
        let mut help = Help::default();
        let mut in_commands = false;
        for line in text.lines() {
            if !line.starts_with(' ') {
                in_commands = line.starts_with("Commands:");
            } else if let Some(flag) = line.split_whitespace().find(|word| word.starts_with("--"))
                && line.trim_start().starts_with('-')
            {
                help.flags.insert(flag.to_owned());
            } else if in_commands && line.starts_with("  ") && !line.starts_with("   ") {
                help.commands.extend(line.split_whitespace().next().map(str::to_owned));
            }
        }
        help
    }
}

impl Markdown {
    fn parse(text: &str) -> Markdown {
        let mut markdown = Markdown::default();
        let (mut fenced, mut blank_before) = (false, true);
        // Backticks pair within a paragraph, also over the end of a line.
        let mut paragraph: Vec<(usize, &str)> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let is_fence = line.trim_start().starts_with("```");
            let indented = line.starts_with("    ")
                && (blank_before || markdown.code.last().is_some_and(|(last, _)| last + 1 == number));
            let ends = is_fence || fenced || indented || line.trim().is_empty() || starts_block(line);
            if ends {
                markdown.take_paragraph(&std::mem::take(&mut paragraph));
            }
            if is_fence {
                fenced = !fenced;
            } else if fenced || indented {
                markdown.code.push((number, line.to_owned()));
            } else {
                if let Some(heading) = line.strip_prefix('#') {
                    markdown.headings.insert(slug(heading.trim_start_matches('#')));
                }
                paragraph.push((number, line));
            }
            blank_before = line.trim().is_empty();
        }
        markdown.take_paragraph(&paragraph);
        markdown
    }

    fn take_paragraph(&mut self, paragraph: &[(usize, &str)]) {
        let mut text = String::new();
        for (_, line) in paragraph {
            // A space in place of code: quotes in it are no quotes.
            let prose = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
            text.push_str(prose.trim());
            text.push(' ');
        }
        let begins = paragraph.first().map_or(0, |(number, _)| *number);
        self.quotes.extend(text.split('"').skip(1).step_by(2).map(|quote| (begins, quote.to_owned())));
        let (mut span, mut in_code, mut begun) = (String::new(), false, 0);
        for (number, line) in paragraph {
            let mut prose = String::new();
            for (part, place) in line.split('`').zip(0..) {
                if place > 0 {
                    in_code = !in_code;
                    if in_code {
                        begun = *number;
                    } else {
                        self.spans.push((begun, std::mem::take(&mut span)));
                    }
                }
                match in_code {
                    true => span.push_str(part),
                    false => prose.push_str(part),
                }
            }
            if in_code {
                span.push(' ');
            }
            for piece in prose.split("](").skip(1) {
                self.links.extend(piece.split(')').next().map(|link| (*number, link.to_owned())));
            }
        }
    }
}

/// A command whose output is shown behind it, in the lines of the same block.
fn check_output<'a>(command: &str, behind: impl Iterator<Item = &'a (usize, String)>) -> Option<String> {
    let command = command.strip_prefix("$ gantry inspect ")?;
    let arguments: Vec<&str> = std::iter::once("inspect").chain(command.split_whitespace()).collect();
    let printed = gantry_tests::said(&arguments, &root());
    let mut printed = printed.lines().map(str::trim_end);
    let (mut last, mut any) = (None, false);
    for (number, line) in behind {
        if last.replace(*number).is_some_and(|last| last + 1 < *number) || line.trim().starts_with("$ ") {
            break;
        }
        let line = line.strip_prefix("    ").unwrap_or(line).trim_end();
        let is_there = match (line == "…", any) {
            (true, _) => true,
            (false, true) => printed.any(|printed| printed == line),
            (false, false) => printed.next() == Some(line),
        };
        any = line == "…";
        if !is_there {
            return Some(format!("it does not print so: {line}"));
        }
    }
    (!any && printed.next().is_some()).then(|| "it prints more".to_owned())
}

/// A source without the breaks in its texts.
fn joined(text: &str) -> String {
    let mut pieces = text.split("\\\n");
    let mut joined = pieces.next().unwrap_or_default().to_owned();
    pieces.for_each(|piece| joined.push_str(piece.trim_start()));
    joined
}

/// A line that begins something of its own: backticks before it do not pair with those in it.
fn starts_block(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line
        .split_once(". ")
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    numbered || ["#", "- ", "* ", "|"].iter().any(|start| line.starts_with(start))
}

/// A heading as links name it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `build_LANGUAGE`, and beginnings and endings such as `_ms`.
fn is_placeholder(text: &str) -> bool {
    let stands_for = |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
    let is_name = text.chars().any(|c| c.is_ascii_lowercase());
    text.starts_with('_') || text.ends_with('_') || is_name && text.split('_').any(stands_for)
}

/// Of several words, each with a capital letter: hardly English.
fn is_camel(text: &str) -> bool {
    let capitals = text.chars().filter(char::is_ascii_uppercase).count();
    text.starts_with(|c: char| c.is_ascii_uppercase()) && capitals > 1 && text.chars().any(|c| c.is_ascii_lowercase())
}

fn is_file_name(text: &str) -> bool {
    let ends = [".rs", ".proto", ".toml", ".md", ".py"];
    ends.iter().any(|end| text.len() > end.len() && text.ends_with(end))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `path` as seen from `folder`.
fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut resolved = String::new();
    for (part, place) in parts.iter().zip(0..) {
        let _ = write!(resolved, "{}{part}", if place > 0 { "/" } else { "" });
    }
    resolved
}

/// Whether `path` is what `pattern` says, in which `*` stands for any part of a name.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    (0..=rest.len())
        .take_while(|end| !rest.get(..*end).unwrap_or_default().contains('/'))
        .any(|end| rest.get(end..).is_some_and(|rest| matches(after, rest)))
}
