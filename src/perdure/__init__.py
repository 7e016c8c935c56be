"""perdure: the durable memory of an AI agent.

Conversations with exact token accounts, full-text search, forks, an audit trail and a change feed, in one SQLite file
or in PostgreSQL, with the same code and the same answers::

    import perdure

    async with perdure.open("sqlite:///agent.db") as store:
        conversation = await store.create_conversation(agent_id="helper", user_id="ann")
        await store.add_message(conversation.id, "user", "Remember that I am allergic to peanuts.")
        hits = await store.search_messages("peanut allergy", user_id="ann")

``perdure.sync`` has the same verbs, blocking.
"""

from typing import TYPE_CHECKING, Any

from perdure import _exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from perdure.rooms.changes.ops import Change as Change
    from perdure.rooms.checkpoints.config import CheckpointConfig as CheckpointConfig
    from perdure.rooms.checkpoints.diff import StateDiff as StateDiff
    from perdure.rooms.checkpoints.merge import MISSING as MISSING
    from perdure.rooms.checkpoints.merge import MergeConflict as MergeConflict
    from perdure.rooms.checkpoints.merge import MergeReport as MergeReport
    from perdure.rooms.checkpoints.strategy import CheckpointStrategy as CheckpointStrategy
    from perdure.rooms.checkpoints.strategy import RecoveryPolicy as RecoveryPolicy
    from perdure.rooms.checkpoints.values import Checkpoint as Checkpoint
    from perdure.rooms.checkpoints.values import CheckpointBranch as CheckpointBranch
    from perdure.rooms.checkpoints.values import CheckpointThread as CheckpointThread
    from perdure.rooms.checkpoints.values import RetentionReport as RetentionReport
    from perdure.rooms.checkpoints.values import VerifyReport as VerifyReport
    from perdure.rooms.chores.ops import ChoreState as ChoreState
    from perdure.rooms.conversations.content import FilePart as FilePart
    from perdure.rooms.conversations.content import OpaquePart as OpaquePart
    from perdure.rooms.conversations.content import ReasoningPart as ReasoningPart
    from perdure.rooms.conversations.content import TextPart as TextPart
    from perdure.rooms.conversations.content import ToolCallPart as ToolCallPart
    from perdure.rooms.conversations.content import ToolResultPart as ToolResultPart
    from perdure.rooms.conversations.draft import Draft as Draft
    from perdure.rooms.conversations.draft import MessageRole as MessageRole
    from perdure.rooms.conversations.reports import ExportReport as ExportReport
    from perdure.rooms.conversations.reports import ImportReport as ImportReport
    from perdure.rooms.conversations.reports import LineError as LineError
    from perdure.rooms.conversations.reports import TransferProgress as TransferProgress
    from perdure.rooms.conversations.usage import TokenUsage as TokenUsage
    from perdure.rooms.conversations.values import Conversation as Conversation
    from perdure.rooms.conversations.values import ConversationMetadata as ConversationMetadata
    from perdure.rooms.conversations.values import Message as Message
    from perdure.rooms.conversations.values import MessageVersion as MessageVersion
    from perdure.rooms.conversations.values import Page as Page
    from perdure.rooms.conversations.values import TokenReportRow as TokenReportRow
    from perdure.services.checkpoints import Checkpointer as Checkpointer
    from perdure.services.opening import open as open
    from perdure.services.search import SearchHit as SearchHit
    from perdure.services.store import PostgresStore as PostgresStore
    from perdure.services.store import SQLiteStore as SQLiteStore
    from perdure.services.store import Store as Store
    from perdure.services.tracking import Tracker as Tracker
    from perdure.values.config import PersistenceConfig as PersistenceConfig
    from perdure.values.errors import Busy as Busy
    from perdure.values.errors import ChecksumMismatch as ChecksumMismatch
    from perdure.values.errors import Closed as Closed
    from perdure.values.errors import Conflict as Conflict
    from perdure.values.errors import Damaged as Damaged
    from perdure.values.errors import Disconnected as Disconnected
    from perdure.values.errors import EmbedderDown as EmbedderDown
    from perdure.values.errors import Forbidden as Forbidden
    from perdure.values.errors import Invalid as Invalid
    from perdure.values.errors import MissingExtra as MissingExtra
    from perdure.values.errors import Misused as Misused
    from perdure.values.errors import NotFound as NotFound
    from perdure.values.errors import OutcomeUnknown as OutcomeUnknown
    from perdure.values.errors import OverLimit as OverLimit
    from perdure.values.errors import PerdureError as PerdureError
    from perdure.values.errors import QuotaExceeded as QuotaExceeded
    from perdure.values.errors import Refused as Refused
    from perdure.values.errors import SchemaAhead as SchemaAhead
    from perdure.values.errors import SchemaBehind as SchemaBehind
    from perdure.values.errors import Unavailable as Unavailable
    from perdure.values.errors import Undecodable as Undecodable
    from perdure.values.errors import WrongKey as WrongKey


def __getattr__(name: str) -> Any:
    if name == "open":
        from perdure.services.opening import open as opener

        return opener
    if name == "sync":
        import perdure.sync as blocking

        return blocking
    return _exports.load(name, blocking=False)


def __dir__() -> list[str]:
    return [*_exports.names(), "open", "sync"]
