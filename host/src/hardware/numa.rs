//! Memory that is nearer to some processors than to others, as Linux tells it.

use std::fs;
use std::path::Path;

use super::NumaNode;

/// The nodes of the machine, by number; none where the system does not tell.
pub(super) fn nodes(sys: &Path) -> Vec<NumaNode> {
    let folder = sys.join("devices/system/node");
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut nodes: Vec<NumaNode> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            node(id, &entry.path())
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// A node; `None` when its processors cannot be read. One that has none, only memory, is a node.
fn node(id: u32, folder: &Path) -> Option<NumaNode> {
    let cpus = fs::read_to_string(folder.join("cpulist")).ok()?.parse().ok()?;
    let memory = fs::read_to_string(folder.join("meminfo")).unwrap_or_default();
    let bytes = |name: &str| {
        // `Node 0 MemTotal:       32768 kB`
        let line = memory.lines().find_map(|line| line.split_once(name)?.1.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1 << 10)
    };
    let (total, free) = (bytes("MemTotal").unwrap_or(0), bytes("MemFree").unwrap_or(0));
    Some(NumaNode { id, cpus, memory_total: total, memory_free: free.min(total) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, node: &str, cpus: &str, memory: &str) {
        let folder = root.join("devices/system/node").join(node);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cpulist"), cpus).unwrap();
        fs::write(folder.join("meminfo"), memory).unwrap();
    }

    #[test]
    fn each_node_has_processors_and_memory() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(nodes(root.path()), []);
        let memory =
            "Node 10 MemTotal:       4096 kB\nNode 10 MemFree:        1024 kB\nNode 10 MemUsed: 3072 kB\n";
        write(root.path(), "node10", "0-3,8\n", memory);
        write(root.path(), "node2", "\n", "Node 2 MemTotal: 8 kB\nNode 2 MemFree: 9 kB\n");
        write(root.path(), "node3", "4\n", "nothing");
        write(root.path(), "node4", "all\n", memory);
        write(root.path(), "nodes", "5\n", memory);
        let told: Vec<_> = nodes(root.path())
            .into_iter()
            .map(|node| (node.id, node.cpus.to_string(), node.memory_total, node.memory_free))
            .collect();
        assert_eq!(
            told,
            [
                (2, String::new(), 8 << 10, 8 << 10),
                (3, "4".to_owned(), 0, 0),
                (10, "0-3,8".to_owned(), 4096 << 10, 1024 << 10)
            ]
        );
    }
}
