//go:build skeinplant

package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
)

// mistakes are planted one by one; each must be seen within so many seeds. The packages that have them test them, too, by
// themselves.
var mistakes = []struct {
	rule, what string
	plant      func(name string) (undo func())
	name       string
	theme      string // "": any
	runs       uint64
}{
	{"O2", "an opening frame without a name: a failover takes the newest one of the generation's number", failover.Plant, "unnamed", "", 2000},
	{"O2", "an opening frame without a name: an owner opens the newest one of the generation's number", plant, "unnamed", "", 2000},
	{"O4", "ack before witnesses", plant, "ackFirst", "", 2000},
	{"O4", "ack with one witness of two, seal from any", witness.Plant, "ackEarly", "", 2000},
	{"O5", "a witness takes a delta whose number does not follow", witness.Plant, "gapAccepted", "", 2000},
	{"O6", "a restarted witness says empty", witness.Plant, "emptyAnswer", "", 2000},
	{"O6", "a controller takes a witness that does not know for an empty one", failover.Plant, "emptyTable", "", 2000},
	{"O7", "a joiner is not awaited before the swap is settled", witness.Plant, "joinerNotAwaited", "late swaps", 2000},
	{"O8", "an unknown swap is settled by a read (the map's store)", queuemapper.Plant, "settleReads", "late swaps", 2000},
	{"O8", "an unknown swap is settled by a read (the owner)", witness.Plant, "settleByRead", "late swaps", 2000},
	{"O9", "a former member is asked", failover.Plant, "cachedSet", "late swaps", 2000},
	{"O10", "a witness takes updates after its seal", witness.Plant, "afterSeal", "", 2000},
	{"O12", "dedup state dropped on failover", failover.Plant, "dropState", "", 2000},
	{"O13", "publish without comparing the source log", queuemapper.Plant, "noSource", "late publications", 2000},
	{"O13", "publish without comparing the target log", queuemapper.Plant, "noTarget", "late publications", 2000},
	{"O13", "the source log compared as it is now, not at the table's epoch", failover.Plant, "anyEpoch", "", 2000},
	{"O15", "an owner serves before it reads its record", host.Plant, "serveFirst", "", 2000},
	{"O15", "a sealed log is reopened, the map was read before", host.Plant, "mapFirst", "", 2000},
	{"O16", "ends taken from the disk, not from the map's table", host.Plant, "diskEnds", "", 2000},
	{"O18", "an unknown move is settled by a read", queuemapper.Plant, "touchReads", "late publications", 2000},
	{"O18", "a move that landed and was followed by others counts as not applied: its old owner goes on", host.Plant, "thawAnyway", "late publications", 2000},
	{"O19", "two controllers seal each other's last open log", queuemapper.Plant, "sealLast", "", 2000},
	{"O22", "an offset past the ceiling is given", plant, "noCeiling", "", 2000},
	{"O22", "a log is given up whose owner still runs, and can acknowledge", plant, "noFence", "ends forgotten", 2000},
	{"O22", "the word that a log is lost is taken for one about whoever has reopened it since", host.Plant, "oldWord", "ends forgotten", 2000},
	{"I6", "a group is sealed at its ceiling, but not for all of its partitions", host.Plant, "gapSome", "ends forgotten", 2000},
	{"I4", "the log start goes on behind what lies in a log that is about to be given up, and comes back", host.Plant, "startBehind", "ends forgotten", 2000},
	{"I5", "a log is given up with groups open in it", func(name string) func() {
		a, b := host.Plant(name), queuemapper.Plant(name)
		return func() { a(); b() }
	}, "lostOpen", "ends forgotten", 2000},
	{"I4", "what a disk has lost is not marked", host.Plant, "lossUnmarked", "splits and returns", 2000},
	{"O1", "a log is given up that its host has reopened meanwhile", queuemapper.Plant, "loseOpened", "disks gone", 2000},
	{"I4", "what lies in other logs is given up, too", queuemapper.Plant, "loseOthers", "disks gone", 2000},
	{"I10", "a disk that was given up is taken into service", queuemapper.Plant, "takeLost", "disks gone", 2000},
	{"I10", "a log's late registration lands after it was given up", queuemapper.Plant, "lateNew", "disks gone", 2000},
	{"I14", "a broker that is cut off from the leader of the map's etcd does not go through another one", plant, "ownMember", "", 2000},
	{"I5", "an epoch is used again", func(name string) func() {
		a, b := failover.Plant(name), queuemapper.Plant("sameEpoch")
		return func() { a(); b() }
	}, "reuseEpoch", "", 2000},
}

// TestPlanted proves that the simulation can fail, for each rule: a mistake is seen in one of the first runs of its theme.
//
//	go test -tags skeinplant -run TestPlanted ./internal/sim -v
func TestPlanted(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.rule+"_"+m.name, func(t *testing.T) {
			defer m.plant(m.name)()
			begun := time.Now()
			runs := uint64(0)
			for seed := uint64(1); runs < m.runs; seed++ {
				cfg := Draw(seed)
				if m.theme != "" && cfg.Theme != m.theme {
					continue
				}
				runs++
				r := Run(cfg, false)
				if r.Err == nil {
					continue
				}
				if v := (*Violation)(nil); !errors.As(r.Err, &v) {
					t.Errorf("seed %d: %v", seed, r.Err)
					return
				}
				t.Logf("%s: %s: after %d runs, %v: seed %d: %v", m.rule, m.what, runs, time.Since(begun).Round(time.Millisecond), seed, r.Err)
				return
			}
			t.Errorf("%s: %s: not seen in %d runs", m.rule, m.what, runs)
		})
	}
}
