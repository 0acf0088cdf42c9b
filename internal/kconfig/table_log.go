package kconfig

// Names of one thing in several units, finest first.
var (
	retentionChain = []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}
	rollChain      = []string{"log.roll.ms", "log.roll.hours"}
	jitterChain    = []string{"log.roll.jitter.ms", "log.roll.jitter.hours"}
	flushChain     = []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}
)

// brokerLogDefs are the broker configs about logs; most are the default of a topic config.
var brokerLogDefs = []Def{
	{Name: "log.dir", Type: List, Default: "skein-data", check: anything,
		Doc: "The data directory, if log.dirs does not say otherwise."},
	{Name: "log.dirs", Type: List, Null: true, check: anything,
		Doc: "The data directories; each holds one log."},
	{Name: "log.dir.failure.timeout.ms", Type: Long, Default: "30000", check: atLeast(1), Effect: Stored, Note: "a log whose write fails is given up at once",
		Doc: "Milliseconds after which a broker with a failed directory that it cannot report stops."},

	// Retention.
	{Name: "log.retention.ms", Chain: retentionChain, Type: Long, Null: true, Update: ClusterWide, check: anyNumber,
		Doc: "Milliseconds for which records are kept where the topic does not say otherwise; -1 is for ever, null asks log.retention.minutes."},
	{Name: "log.retention.minutes", Chain: retentionChain, Type: Int, Null: true, check: anyNumber,
		Doc: "The same in minutes; null asks log.retention.hours."},
	{Name: "log.retention.hours", Chain: retentionChain, Type: Int, Default: "168", check: anyNumber,
		Doc: "The same in hours."},
	{Name: "log.retention.bytes", Type: Long, Default: "-1", Update: ClusterWide, check: anyNumber,
		Doc: "Bytes that a partition may hold where the topic does not say otherwise; -1 is no limit."},
	{Name: "log.retention.check.interval.ms", Type: Long, Default: "300000", check: atLeast(1),
		Doc: "Milliseconds between two searches for records that retention lets go."},
	{Name: "log.local.retention.bytes", Type: Long, Default: "-2", Update: ClusterWide, check: atLeast(-2), Effect: Stored, Note: noteTiered,
		Doc: "Default of local.retention.bytes."},
	{Name: "log.local.retention.ms", Type: Long, Default: "-2", Update: ClusterWide, check: atLeast(-2), Effect: Stored, Note: noteTiered,
		Doc: "Default of local.retention.ms."},

	// Files.
	{Name: "log.segment.bytes", Type: Int, Default: "1073741824", Update: ClusterWide, check: atLeast(1048576), Effect: Stored, Note: noteOneLog,
		Doc: "Default of segment.bytes."},
	{Name: "log.roll.ms", Chain: rollChain, Type: Long, Null: true, Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteOneLog,
		Doc: "Default of segment.ms; null asks log.roll.hours."},
	{Name: "log.roll.hours", Chain: rollChain, Type: Int, Default: "168", check: atLeast(1), Effect: Stored, Note: noteOneLog,
		Doc: "The same in hours."},
	{Name: "log.roll.jitter.ms", Chain: jitterChain, Type: Long, Null: true, Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteOneLog,
		Doc: "Default of segment.jitter.ms; null asks log.roll.jitter.hours."},
	{Name: "log.roll.jitter.hours", Chain: jitterChain, Type: Int, Default: "0", check: atLeast(0), Effect: Stored, Note: noteOneLog,
		Doc: "The same in hours."},
	{Name: "log.segment.delete.delay.ms", Type: Long, Default: "60000", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteOneLog,
		Doc: "Default of file.delete.delay.ms."},
	{Name: "log.index.interval.bytes", Type: Int, Default: "4096", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteOneLog,
		Doc: "Default of index.interval.bytes."},
	{Name: "log.index.size.max.bytes", Type: Int, Default: "10485760", Update: ClusterWide, check: atLeast(4), Effect: Stored, Note: noteOneLog,
		Doc: "Default of segment.index.bytes."},
	{Name: "log.preallocate", Type: Boolean, Default: "false", Update: ClusterWide, Effect: Stored, Note: "files are always prepared at full size",
		Doc: "Default of preallocate."},

	// Flushes.
	{Name: "log.flush.interval.messages", Type: Long, Default: "9223372036854775807", Update: ClusterWide, check: atLeast(1), Effect: Stored, Note: noteDurable,
		Doc: "Default of flush.messages."},
	{Name: "log.flush.interval.ms", Chain: flushChain, Type: Long, Null: true, Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteDurable,
		Doc: "Default of flush.ms; null asks log.flush.scheduler.interval.ms."},
	{Name: "log.flush.scheduler.interval.ms", Type: Long, Default: "9223372036854775807", check: anyNumber, Effect: Stored, Note: noteDurable,
		Doc: "Milliseconds between two searches for files that must be forced to disk."},
	{Name: "log.flush.offset.checkpoint.interval.ms", Type: Int, Default: "60000", check: atLeast(0), Effect: Stored, Note: noteDurable,
		Doc: "Milliseconds between two writes of the recovery points."},
	{Name: "log.flush.start.offset.checkpoint.interval.ms", Type: Int, Default: "60000", check: atLeast(0), Effect: Stored, Note: noteDurable,
		Doc: "Milliseconds between two writes of the log starts."},

	// Timestamps.
	{Name: "log.message.timestamp.type", Type: String, Default: "CreateTime", Update: ClusterWide, check: oneOf("CreateTime", "LogAppendTime"),
		Doc: "Default of message.timestamp.type."},
	{Name: "log.message.timestamp.after.max.ms", Type: Long, Default: "3600000", Update: ClusterWide, check: atLeast(0),
		Doc: "Default of message.timestamp.after.max.ms."},
	{Name: "log.message.timestamp.before.max.ms", Type: Long, Default: "9223372036854775807", Update: ClusterWide, check: atLeast(0),
		Doc: "Default of message.timestamp.before.max.ms."},

	// Cleaning.
	{Name: "log.cleanup.policy", Type: List, Default: "delete", Update: ClusterWide, each: oneOf("compact", "delete"), Effect: Partly, Note: "delete and the empty list work; " + noteCompact,
		Doc: "Default of cleanup.policy."},
	{Name: "log.cleaner.enable", Type: Boolean, Default: "true", Effect: Stored, Note: noteCompact,
		Doc: "Whether compacted topics are cleaned."},
	{Name: "log.cleaner.threads", Type: Int, Default: "1", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteCompact,
		Doc: "Threads that clean."},
	{Name: "log.cleaner.backoff.ms", Type: Long, Default: "15000", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteCompact,
		Doc: "Milliseconds that the cleaner sleeps when there is nothing to clean."},
	{Name: "log.cleaner.dedupe.buffer.size", Type: Long, Default: "134217728", Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteCompact,
		Doc: "Memory in which the cleaner keeps keys."},
	{Name: "log.cleaner.io.buffer.size", Type: Int, Default: "524288", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteCompact,
		Doc: "Memory in which the cleaner copies records."},
	{Name: "log.cleaner.io.buffer.load.factor", Type: Double, Default: "0.9", Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteCompact,
		Doc: "How full the cleaner's key table may be."},
	{Name: "log.cleaner.io.max.bytes.per.second", Type: Double, Default: "1.7976931348623157E308", Update: ClusterWide, check: anyNumber, Effect: Stored, Note: noteCompact,
		Doc: "Bytes per second that the cleaner reads and writes."},
	{Name: "log.cleaner.delete.retention.ms", Type: Long, Default: "86400000", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteCompact,
		Doc: "Default of delete.retention.ms."},
	{Name: "log.cleaner.min.cleanable.ratio", Type: Double, Default: "0.5", Update: ClusterWide, check: ratio, Effect: Stored, Note: noteCompact,
		Doc: "Default of min.cleanable.dirty.ratio."},
	{Name: "log.cleaner.min.compaction.lag.ms", Type: Long, Default: "0", Update: ClusterWide, check: atLeast(0), Effect: Stored, Note: noteCompact,
		Doc: "Default of min.compaction.lag.ms."},
	{Name: "log.cleaner.max.compaction.lag.ms", Type: Long, Default: "9223372036854775807", Update: ClusterWide, check: atLeast(1), Effect: Stored, Note: noteCompact,
		Doc: "Default of max.compaction.lag.ms."},
}
