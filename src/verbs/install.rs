//! `mcp install`: how an MCP client is told of this server.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Answer, Reporter, Verb};
use crate::error::{Error, Result};
use crate::util::files;

/// The name that clients know the server by.
const NAME: &str = "tallow";

/// A client, and where it keeps its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Client {
    /// Claude Code: `.mcp.json` of the project.
    ClaudeCode,
    /// Claude Desktop: `claude_desktop_config.json`.
    ClaudeDesktop,
    /// Cursor: `.cursor/mcp.json` of the project.
    Cursor,
    /// VS Code with Copilot: `.vscode/mcp.json` of the project.
    Vscode,
    /// Codex: `~/.codex/config.toml`.
    Codex,
    /// Gemini CLI: `.gemini/settings.json` of the project.
    Gemini,
    /// Windsurf: `~/.codeium/windsurf/mcp_config.json`.
    Windsurf,
    /// Zed: `.zed/settings.json` of the project.
    Zed,
    /// OpenCode: `opencode.json` of the project.
    Opencode,
}

/// Print the configuration that makes an MCP client start this server, or write it.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The client.
    #[arg(long, value_enum)]
    pub client: Client,
    /// Write it into the client's file; what else stands there is kept.
    #[arg(long)]
    #[serde(default)]
    pub write: bool,
    /// The client's file, where it is not the usual one.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Keep the server to this folder: no path outside is read or written.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    pub root: Option<PathBuf>,
}

/// The configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The client's file.
    pub file: PathBuf,
    /// What belongs into it.
    pub text: String,
    /// Whether it was written.
    pub written: bool,
    /// A command that does the same, where the client has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What to do next.
    pub next: String,
}

/// How a client's file is written.
enum Format {
    /// A JSON object of servers under this key, and what an entry has besides.
    Json(&'static str, fn(&str, &[String]) -> Value),
    /// A table in TOML.
    Toml,
}

fn plain(program: &str, arguments: &[String]) -> Value {
    json!({"command": program, "args": arguments})
}

fn typed(program: &str, arguments: &[String]) -> Value {
    json!({"type": "stdio", "command": program, "args": arguments})
}

fn one_list(program: &str, arguments: &[String]) -> Value {
    let command: Vec<&str> = std::iter::once(program).chain(arguments.iter().map(String::as_str)).collect();
    json!({"type": "local", "command": command, "enabled": true})
}

impl Client {
    fn format(self) -> Format {
        match self {
            Self::ClaudeCode => Format::Json("mcpServers", typed),
            Self::ClaudeDesktop | Self::Cursor | Self::Gemini | Self::Windsurf => Format::Json("mcpServers", plain),
            Self::Vscode => Format::Json("servers", typed),
            Self::Zed => Format::Json("context_servers", plain),
            Self::Opencode => Format::Json("mcp", one_list),
            Self::Codex => Format::Toml,
        }
    }

    fn file(self) -> Result<PathBuf> {
        let home = || {
            std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).ok_or_else(|| {
                Error::usage("the home folder is not known: `HOME` is not set").with_hint("name the file with `--file`")
            })
        };
        Ok(match self {
            Self::ClaudeCode => PathBuf::from(".mcp.json"),
            Self::Cursor => PathBuf::from(".cursor/mcp.json"),
            Self::Vscode => PathBuf::from(".vscode/mcp.json"),
            Self::Gemini => PathBuf::from(".gemini/settings.json"),
            Self::Zed => PathBuf::from(".zed/settings.json"),
            Self::Opencode => PathBuf::from("opencode.json"),
            Self::Codex => home()?.join(".codex/config.toml"),
            Self::Windsurf => home()?.join(".codeium/windsurf/mcp_config.json"),
            Self::ClaudeDesktop if cfg!(target_os = "macos") => {
                home()?.join("Library/Application Support/Claude/claude_desktop_config.json")
            }
            Self::ClaudeDesktop => home()?.join(".config/Claude/claude_desktop_config.json"),
        })
    }

    /// The client's own way, where it has a command for it.
    fn command(self, program: &str, arguments: &[String]) -> Option<String> {
        let quoted: Vec<String> =
            std::iter::once(program).chain(arguments.iter().map(String::as_str)).map(shell).collect();
        let line = quoted.join(" ");
        match self {
            Self::ClaudeCode => Some(format!("claude mcp add {NAME} -- {line}")),
            Self::Codex => Some(format!("codex mcp add {NAME} -- {line}")),
            Self::Gemini => Some(format!("gemini mcp add {NAME} {line}")),
            Self::Vscode => {
                let entry = json!({"name": NAME, "command": program, "args": arguments});
                Some(format!("code --add-mcp {}", shell(&entry.to_string())))
            }
            _ => None,
        }
    }
}

/// One word of a shell's line.
fn shell(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let program = std::env::current_exe().map_err(Error::io("find", "the tallow program"))?.display().to_string();
        let mut arguments = vec!["mcp".to_owned()];
        if let Some(root) = &self.root {
            let root = root.canonicalize().map_err(Error::io("open the workspace", root))?;
            arguments.extend(["--root".to_owned(), root.display().to_string()]);
        }
        let file = match self.file {
            Some(file) => file,
            None => self.client.file()?,
        };
        let text = match self.client.format() {
            Format::Json(key, entry) => {
                serde_json::to_string_pretty(&json!({key: {NAME: entry(&program, &arguments)}})).unwrap_or_default()
            }
            Format::Toml => table(&program, &arguments),
        };
        if self.write {
            let there = if file.is_file() { files::read_text(&file)? } else { String::new() };
            let merged = match self.client.format() {
                Format::Json(key, entry) => merged_json(&file, &there, key, entry(&program, &arguments))?,
                Format::Toml => merged_toml(&file, &there, &text)?,
            };
            if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                files::create_dir(folder)?;
            }
            files::write_atomic(&file, merged.as_bytes())?;
        }
        let shown = file.display();
        let next = if self.write {
            "start the client anew; it lists the server's tools".to_owned()
        } else {
            format!("put the text into `{shown}`, or call this again with `--write`")
        };
        let command = self.client.command(&program, &arguments);
        Ok(Response { text, written: self.write, command, next, file })
    }
}

fn table(program: &str, arguments: &[String]) -> String {
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list: Vec<String> = arguments.iter().map(|argument| string(argument)).collect();
    format!("[mcp_servers.{NAME}]\ncommand = {}\nargs = [{}]", string(program), list.join(", "))
}

fn unreadable(file: &Path, why: &str) -> Error {
    Error::usage(format!("`{}` cannot be added to: {why}", file.display()))
        .with_hint("call this without `--write` and put the text in by hand; the file was left as it is")
}

fn merged_json(file: &Path, there: &str, key: &str, entry: Value) -> Result<String> {
    let mut whole: Map<String, Value> = if there.trim().is_empty() {
        Map::new()
    } else {
        serde_json::from_str(there).map_err(|e| unreadable(file, &format!("it is not plain JSON ({e})")))?
    };
    let servers = whole.entry(key).or_insert_with(|| json!({}));
    let Some(servers) = servers.as_object_mut() else {
        return Err(unreadable(file, &format!("`{key}` is not an object")));
    };
    servers.insert(NAME.to_owned(), entry);
    let text = serde_json::to_string_pretty(&whole).map_err(|e| Error::Internal(format!("configuration: {e}")))?;
    Ok(text + "\n")
}

/// Appended, so that comments and order stay.
fn merged_toml(file: &Path, there: &str, table: &str) -> Result<String> {
    let whole: toml::Table = there.parse().map_err(|e| unreadable(file, &format!("it is not TOML ({e})")))?;
    let servers = whole.get("mcp_servers");
    if let Some(old) = servers.and_then(|servers| servers.get(NAME)) {
        let new: toml::Table = table.parse().map_err(|e| Error::Internal(format!("configuration: {e}")))?;
        if new.get("mcp_servers").and_then(|servers| servers.get(NAME)) == Some(old) {
            return Ok(there.to_owned());
        }
        return Err(unreadable(file, &format!("it has another `[mcp_servers.{NAME}]`")));
    }
    let gap = if there.trim().is_empty() { "" } else { "\n\n" };
    Ok(format!("{}{gap}{table}\n", there.trim_end()))
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![
            format!("{}  {}", if self.written { "wrote" } else { "file " }, self.file.display()),
            String::new(),
            self.text.clone(),
            String::new(),
        ];
        lines.extend(self.command.as_ref().map(|command| format!("or     {command}")));
        lines.push(format!("next   {}", self.next));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::ValueEnum;

    fn request(client: Client, file: &Path) -> Request {
        Request { client, write: true, file: Some(file.to_path_buf()), root: None }
    }

    #[test]
    fn what_stands_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/mcp.json");
        request(Client::Cursor, &file).run(&mut |_: &str| {}).unwrap();
        let first: Value = serde_json::from_str(&files::read_text(&file).unwrap()).unwrap();
        assert_eq!(first["mcpServers"]["tallow"]["args"], json!(["mcp"]));
        std::fs::write(&file, r#"{"mcpServers": {"other": {"command": "x"}}, "theme": 1}"#).unwrap();
        request(Client::Cursor, &file).run(&mut |_: &str| {}).unwrap();
        let second: Value = serde_json::from_str(&files::read_text(&file).unwrap()).unwrap();
        assert_eq!((&second["mcpServers"]["other"]["command"], &second["theme"]), (&json!("x"), &json!(1)));
        assert_eq!(second["mcpServers"]["tallow"], first["mcpServers"]["tallow"]);

        for broken in ["{ // comment\n}", r#"{"mcpServers": []}"#] {
            std::fs::write(&file, broken).unwrap();
            let error = request(Client::Cursor, &file).run(&mut |_: &str| {}).unwrap_err();
            assert!(error.hint().unwrap().contains("by hand"), "{error}");
            assert_eq!(files::read_text(&file).unwrap(), broken);
        }
    }

    #[test]
    fn toml_is_appended_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "# mine\nmodel = \"x\"\n").unwrap();
        request(Client::Codex, &file).run(&mut |_: &str| {}).unwrap();
        let once = files::read_text(&file).unwrap();
        assert!(once.starts_with("# mine\nmodel = \"x\"\n\n[mcp_servers.tallow]\ncommand = "), "{once}");
        request(Client::Codex, &file).run(&mut |_: &str| {}).unwrap();
        assert_eq!(files::read_text(&file).unwrap(), once);
        std::fs::write(&file, "[mcp_servers.tallow]\ncommand = \"old\"\n").unwrap();
        assert!(request(Client::Codex, &file).run(&mut |_: &str| {}).is_err());
    }

    #[test]
    fn every_client_gets_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let spaced = dir.path().join("my work");
        std::fs::create_dir(&spaced).unwrap();
        for client in Client::value_variants() {
            let request = Request { client: *client, write: false, file: Some("x".into()), root: Some(spaced.clone()) };
            let answer = request.run(&mut |_: &str| {}).unwrap();
            assert!(answer.text.contains("--root") && answer.text.contains("my work"), "{}", answer.text);
            assert!(answer.command.is_none_or(|line| line.contains("'") && line.contains("my work")));
            assert!(!answer.written && answer.next.contains("--write"));
        }
    }
}
