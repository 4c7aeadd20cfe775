//! What a directory looks like after saves, and which step of one fails: the contract once more, over a tree in
//! memory.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ringseal::Step;

use super::cases::{How, ROOT, Save};
use super::saved;
use crate::inputs::tree::{Thing, Tree};

/// What a save answers: nothing, or the step that fails and its errno.
pub(super) type Expected = Result<(), (Step, i32)>;

const NAME_MAX: usize = 255;

/// How many links one path may go through.
const LINKS_MAX: u32 = 40;

#[derive(Debug, Clone)]
enum Node {
    Directory { parent: usize, names: BTreeMap<Vec<u8>, usize> },
    Leaf(Thing),
}

/// A tree; node 0 is a case's own directory.
#[derive(Debug)]
pub(super) struct Model {
    nodes: Vec<Node>,
    /// Bytes of the path by which the root is named.
    root_len: usize,
}

impl Model {
    pub(super) fn new(base: &Path) -> Model {
        let root_len = base.join(ROOT).as_os_str().as_bytes().len();
        Model { nodes: vec![Node::Directory { parent: 0, names: BTreeMap::new() }], root_len }
    }

    /// Puts something at a path whose directory is there.
    pub(super) fn plant(&mut self, path: &[u8], thing: &Thing) {
        let (parent, name) = split(path);
        let parent = self.walk(0, parent, None, &mut 0).unwrap_or(0);
        let node = match thing {
            Thing::Directory => Node::Directory { parent, names: BTreeMap::new() },
            leaf => Node::Leaf(leaf.clone()),
        };
        self.insert(parent, name, node);
    }

    fn insert(&mut self, dir: usize, name: &[u8], node: Node) {
        self.nodes.push(node);
        let new = self.nodes.len() - 1;
        self.link(dir, name, new);
    }

    fn link(&mut self, dir: usize, name: &[u8], node: usize) {
        if let Node::Directory { names, .. } = &mut self.nodes[dir] {
            names.insert(name.to_vec(), node);
        }
    }

    fn at(&self, dir: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[dir] {
            Node::Directory { names, .. } => names.get(name).copied(),
            Node::Leaf(_) => None,
        }
    }

    /// Opens a directory by a path, as the kernel does; `beneath` a directory, it follows no link and does not
    /// leave that.
    fn walk(
        &self,
        from: usize,
        path: &[u8],
        beneath: Option<usize>,
        links: &mut u32,
    ) -> Result<usize, i32> {
        let mut here = from;
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." if beneath == Some(here) => return Err(libc::EXDEV),
                b".." => {
                    if let Node::Directory { parent, .. } = &self.nodes[here] {
                        here = *parent;
                    }
                    continue;
                }
                _ if name.len() > NAME_MAX => return Err(libc::ENAMETOOLONG),
                _ => {}
            }
            let next = self.at(here, name).ok_or(libc::ENOENT)?;
            here = match &self.nodes[next] {
                Node::Directory { .. } => next,
                Node::Leaf(Thing::Link(_)) if beneath.is_some() => return Err(libc::ELOOP),
                Node::Leaf(Thing::Link(target)) => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return Err(libc::ELOOP);
                    }
                    self.walk(here, target, None, links)?
                }
                Node::Leaf(_) => return Err(libc::ENOTDIR),
            };
        }
        Ok(here)
    }

    /// Finds the directory of a save's target, and the name in it.
    fn place<'a>(&self, save: &'a Save) -> Result<(usize, &'a [u8]), (Step, i32)> {
        let root = self.walk(0, ROOT.as_bytes(), None, &mut 0).unwrap_or(0);
        if save.how == How::At {
            name_of(&save.path)?;
            return Ok((root, &save.path));
        }
        let (parent, name) = split(&save.path);
        name_of(name)?;
        let fails = |errno| (Step::OpenDirectory, errno);
        // The path's parent as it is given to the kernel.
        let given = match save.how {
            How::Beneath => parent.len(),
            _ => self.root_len + 1 + save.path.len() - name.len() - 1,
        };
        if parent.contains(&0) {
            return Err(fails(libc::EINVAL));
        }
        if given >= libc::PATH_MAX as usize {
            return Err(fails(libc::ENAMETOOLONG));
        }
        if save.how == How::Beneath && save.path.first() == Some(&b'/') {
            return Err(fails(libc::EXDEV));
        }
        let beneath = (save.how == How::Beneath).then_some(root);
        Ok((self.walk(root, parent, beneath, &mut 0).map_err(fails)?, name))
    }

    /// Does a save, and says what it answers.
    pub(super) fn save(&mut self, save: &Save) -> Expected {
        let (dir, name) = self.place(save)?;
        let refused = Err((Step::Accept, libc::EINVAL));
        if save.mode.is_some_and(|mode| mode & !0o777 != 0) {
            return refused;
        }
        if let Some(previous) = &save.previous {
            name_of(previous)?;
            if previous == name {
                return refused;
            }
        }
        if name.len() > NAME_MAX {
            return Err((Step::Check, libc::ENAMETOOLONG));
        }
        let old = self.at(dir, name);
        let mut mode = save.mode.unwrap_or(0o600);
        match old.map(|old| &self.nodes[old]) {
            Some(Node::Directory { .. }) => return Err((Step::Check, libc::EISDIR)),
            Some(Node::Leaf(Thing::Fifo | Thing::Other)) => {
                return Err((Step::Check, libc::EINVAL));
            }
            Some(Node::Leaf(_)) if save.create_new => return Err((Step::Check, libc::EEXIST)),
            Some(Node::Leaf(Thing::File { mode: old, .. })) if save.keep_mode => mode = *old,
            _ => {}
        }
        if let (Some(previous), Some(old)) = (&save.previous, old) {
            if previous.len() > NAME_MAX {
                return Err((Step::RenamePrevious, libc::ENAMETOOLONG));
            }
            let there = self.at(dir, previous).map(|there| &self.nodes[there]);
            if let Some(Node::Directory { .. }) = there {
                return Err((Step::RenamePrevious, libc::EISDIR));
            }
            self.link(dir, previous, old);
        }
        self.insert(dir, name, Node::Leaf(saved(save, mode)));
        Ok(())
    }

    /// All of it.
    pub(super) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        self.tree_of(0, &[], &mut tree);
        tree
    }

    fn tree_of(&self, dir: usize, prefix: &[u8], tree: &mut Tree) {
        let Node::Directory { names, .. } = &self.nodes[dir] else { return };
        for (name, node) in names {
            let path = [prefix, name].concat();
            match &self.nodes[*node] {
                Node::Leaf(leaf) => drop(tree.insert(path, leaf.clone())),
                Node::Directory { .. } => {
                    self.tree_of(*node, &[&path[..], b"/"].concat(), tree);
                    tree.insert(path, Thing::Directory);
                }
            }
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A name that a file of the library's may have.
fn name_of(name: &[u8]) -> Expected {
    let is_own = name.starts_with(b".ringseal-1-") && name.len() > 60;
    let is_none = name.is_empty() || name == b"." || name == b"..";
    match is_own || is_none || name.contains(&b'/') || name.contains(&0) {
        true => Err((Step::Accept, libc::EINVAL)),
        false => Ok(()),
    }
}
