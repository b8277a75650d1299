//! Names: getaddrinfo(3) for programs, by the node's own settings.

use std::sync::Arc;

use ioth_node_proto::Reply;

use crate::control::Conversation;
use crate::node::Node;

pub(crate) fn begin(_node: &Arc<Node>, _args: [i32; 4], _payload: &[u8], conversation: Arc<Conversation>) {
    conversation.answer_with(&Reply { result: libc::EAI_NONAME, ..Reply::default() }, &[]);
}
