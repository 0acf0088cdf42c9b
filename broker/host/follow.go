package host

import (
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Follow makes the logs do what a snapshot says, at once: generations that others opened in them (a controller, another
// owner) take appends, and a log that is no longer open at the epoch at which it was begun here is fenced. One caller
// at a time, with snapshots that do not get older.
func (h *Host) Follow(m *queuemapper.Map) {
	fenced := make(map[ident.Log]bool)
	for id, l := range h.Logs() {
		if why := endedBy(m.Log(id), h.cfg.ID, l.Epoch); why != "" {
			fenced[id] = true
			l.Log.Fence(fmt.Errorf("log %s, begun at epoch %d: %s", id, l.Epoch, why))
		}
	}
	opened := make(map[ident.Log][]ident.Generation)
	for g := range m.Groups() {
		if h.followed != nil && h.followed.Group(g.ID) == g {
			continue
		}
		cur := g.Current()
		if cur == nil || h.Hosted(cur.Log) == nil || fenced[cur.Log] {
			continue
		}
		opened[cur.Log] = append(opened[cur.Log], generationOf(g.ID, cur))
	}
	for id, gens := range opened {
		if err := h.Hosted(id).Log.Activate(gens); err != nil {
			h.log.Error("open what the map opens here", "log", id, "err", err)
		}
	}
	h.followed = m
}

// endedBy says why a log's record ends its service at an epoch here, "" if it does not.
func endedBy(rec *queuemapper.Log, id ident.Broker, epoch ident.LogEpoch) string {
	switch {
	case rec == nil:
		return "its record is gone"
	case rec.Epoch != epoch:
		return fmt.Sprintf("its record is at epoch %d", rec.Epoch)
	case rec.Host != id:
		return fmt.Sprintf("its record names broker %d", rec.Host)
	case rec.State != queuemapper.LogOpen:
		return "its record is sealed"
	}
	return ""
}
