//! Reading Rust well enough for rules: without comments and literals, with the extent of blocks.

/// One Rust file.
pub struct File {
    /// From the project's root, with forward slashes.
    pub path: String,
    pub text: String,
    /// `text` with comments, strings and characters blanked; same lines and columns.
    pub code: String,
    /// Which lines belong to `#[cfg(test)]` items.
    pub test_lines: Vec<bool>,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let test_lines = test_lines(path, &code);
        Self { path: path.into(), text: text.into(), code, test_lines }
    }

    /// The top-level module the file belongs to; none for `lib.rs`, `main.rs` and files outside `src/`.
    pub fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?.trim_end_matches(".rs");
        (!matches!(first, "lib" | "main")).then_some(first)
    }

    pub fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// Complaints about every line of code for which `wrong` has something to say.
    pub fn lines(&self, tests_too: bool, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(index, _)| tests_too || !self.test_lines[*index])
            .filter_map(|(index, line)| Some(format!("{}:{}: {}", self.path, index + 1, wrong(line)?)))
            .collect()
    }
}

/// Blanks comments, strings and characters, keeping lines and columns.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` itself if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let find = |from: usize, found: &dyn Fn(usize) -> bool| (from..chars.len()).find(|i| found(*i));
    let len = chars.len();
    match (get(at), get(at + 1)) {
        ('/', '/') => find(at, &|i| get(i) == '\n').unwrap_or(len),
        ('/', '*') => block_comment_end(chars, at),
        ('"', _) => find(at + 1, &|i| get(i) == '"' && !escaped(chars, i)).map_or(len, |i| i + 1),
        ('\'', '\\') => find(at + 3, &|i| get(i) == '\'').map_or(len, |i| i + 1),
        ('\'', _) if get(at + 2) == '\'' => at + 3,
        ('r', '"' | '#') if at == 0 || !is_word(get(at - 1)) || get(at - 1) == 'b' => {
            let hashes = (at + 1..len).take_while(|i| get(*i) == '#').count();
            if get(at + 1 + hashes) != '"' {
                return at;
            }
            let closes = |i: usize| get(i) == '"' && (1..=hashes).all(|n| get(i + n) == '#');
            find(at + 2 + hashes, &closes).map_or(len, |i| i + 1 + hashes)
        }
        _ => at,
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn escaped(chars: &[char], at: usize) -> bool {
    chars[..at].iter().rev().take_while(|c| **c == '\\').count() % 2 == 1
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets of `word` as whole words (or whole paths) in `code`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back().is_some_and(is_word);
        let after = word.ends_with(is_word) && code[at + word.len()..].starts_with(is_word);
        !before && !after
    })
}

pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where the block that opens at or after `from` closes; none if a `;` comes first.
pub fn block_end(code: &str, from: usize) -> Option<usize> {
    let (mut depth, mut brackets) = (0, 0);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(from + at),
            '}' => depth -= 1,
            ';' if depth == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    let whole = !path.starts_with("src/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut marks = vec![whole; count];
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        if let Some(end) = block_end(code, at + attribute.len()) {
            let range = line_of(code, at) - 1..line_of(code, end).min(count);
            marks[range].fill(true);
        }
    }
    marks
}

/// The modules a file declares in files of their own (`mod name;`), in order.
pub fn declared(code: &str) -> Vec<&str> {
    let names = words(code, "mod").filter_map(|at| {
        let rest = code[at + 3..].trim_start();
        let name = rest.split(|c| !is_word(c)).next()?;
        rest[name.len()..].trim_start().starts_with(';').then_some(name)
    });
    names.collect()
}

/// The names that follow each `crate::`, groups opened: `crate::{a::b, c}` gives `a` and `c`.
pub fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for at in words(code, "crate::") {
        let rest = &code[at + 7..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((at, rest.split(|c| !is_word(c)).next().unwrap_or_default()));
            continue;
        };
        let (mut depth, mut fresh) = (1, true);
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => fresh = true,
                c if is_word(c) && fresh => {
                    found.push((at, group[offset..].split(|c| !is_word(c)).next().unwrap_or_default()));
                    fresh = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}
