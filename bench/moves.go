package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// mapView is what the benchmarks need of a Skein broker's GET /v1/map.
type mapView struct {
	Logs []struct {
		ID     string `json:"id"`
		Broker int    `json:"broker"`
		State  string `json:"state"`
	} `json:"logs"`
	Groups []groupView `json:"groups"`
}

type groupView struct {
	Group      int    `json:"group"`
	Log        string `json:"log"`
	Epoch      int64  `json:"epoch"`
	Partitions int    `json:"partitions"`
}

// moveView is what POST /v1/map/move says of a group.
type moveView struct {
	PauseMillis float64 `json:"pauseMillis"`
	Error       string  `json:"error"`
}

func readMap(ctx context.Context, addr string) (v mapView, err error) {
	return v, callHTTP(ctx, "GET", "http://"+addr+"/v1/map", nil, &v)
}

// callHTTP sends and takes JSON.
func callHTTP(ctx context.Context, method, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	rq, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return err
	}
	defer rs.Body.Close()
	text, err := io.ReadAll(rs.Body)
	if err != nil {
		return err
	}
	if rs.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, url, rs.Status, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// hosts maps logs to brokers.
func (v mapView) hosts() map[string]int {
	out := map[string]int{}
	for _, l := range v.Logs {
		out[l.ID] = l.Broker
	}
	return out
}

// readTopicGroups tells which partitions, by running number, are in each group.
func readTopicGroups(ctx context.Context, addr string, topics Topics) (map[int][]int, error) {
	out := map[int][]int{}
	for i := range topics.Count {
		first := i * topics.Partitions
		name, _ := topics.at(first)
		var v struct {
			Partitions []struct {
				Index int `json:"index"`
				Runs  []struct {
					Group int `json:"group"`
				} `json:"runs"`
			} `json:"partitions"`
		}
		if err := callHTTP(ctx, "GET", "http://"+addr+"/v1/map/topics/"+name, nil, &v); err != nil {
			return nil, err
		}
		for _, p := range v.Partitions {
			if n := len(p.Runs); n > 0 {
				g := p.Runs[n-1].Group
				out[g] = append(out[g], first+p.Index)
			}
		}
	}
	return out, nil
}

// How groups are moved one at a time. A pause of some milliseconds shows only in a flow that is denser than that, so each move
// has its own, to nothing but the partitions that move; the flow to all partitions goes on beside it and is the load.
const (
	groupMoves = 300
	moveRate   = 1000                  // requests a second to what moves
	moveLead   = 30 * time.Millisecond // the flow goes before the move: its connection is there, and the route known
	moveAfter  = 50 * time.Millisecond // and after it
	quietEvery = 3                     // moves for each look at the same flow without one
)

// moves moves one group at a time from broker to broker; a sample is the worst latency of a request to its partitions that was due
// from the moment of the move until just after it. Base is the 99th percentile of as long a look without a move.
func (b *faultBench) moves(ctx context.Context) error {
	f, ok := b.fleet.(*skeinFleet)
	if !ok {
		return errors.New("only Skein moves groups")
	}
	groups, err := readTopicGroups(ctx, f.HTTP(1), b.topics)
	if err != nil {
		return err
	}
	filled := slices.Sorted(maps.Keys(groups))
	if len(filled) == 0 {
		return errors.New("no group has partitions")
	}
	var quiet, held []float64
	err = b.underFlow(ctx, b.r.all(), func(*flow) error {
		for n, idle := 0, 0; len(b.out.Samples) < groupMoves; n++ {
			g := filled[n%len(filled)]
			if n%quietEvery == 0 {
				took, err := b.pauseOf(ctx, groups[g], func() error { return nil })
				if err != nil {
					return err
				}
				quiet = append(quiet, took.Seconds())
			}
			var did moveView
			took, err := b.pauseOf(ctx, groups[g], func() (err error) { did, err = moveGroup(ctx, f, g, n); return err })
			if err != nil {
				return fmt.Errorf("move group %d: %w", g, err)
			}
			if did.Error != "" { // it did not move (the balancer was faster), and is no sample
				if idle++; idle > groupMoves {
					return fmt.Errorf("move group %d: %s", g, did.Error)
				}
				continue
			}
			b.out.Samples = append(b.out.Samples, took.Seconds())
			held = append(held, did.PauseMillis/1e3)
		}
		return nil
	})
	slices.Sort(quiet)
	slices.Sort(held)
	b.out.Base = byRank(quiet, 99)
	fmt.Fprintf(b.log, "    the brokers held writes for %.4f s in the median, %.4f s p99\n", byRank(held, 50), byRank(held, 99))
	return err
}

// pauseOf does something under a flow of its own to the listed partitions and returns the worst latency of the requests that were
// due from then on. Every request is waited for: a pause that outlasts the look belongs to what made it.
func (b *faultBench) pauseOf(ctx context.Context, parts []int, do func() error) (time.Duration, error) {
	f := b.flow(parts)
	f.interval = time.Second / moveRate
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { f.run(ctx); close(ended) }()
	time.Sleep(moveLead)
	begun := time.Now()
	err := do()
	time.Sleep(moveAfter)
	stop()
	<-ended
	b.out.Failed += f.failed
	b.out.Refused += f.refused
	return f.worstSince(begun), err
}

// moveGroup moves a group to another log than it is in.
func moveGroup(ctx context.Context, f *skeinFleet, group, n int) (did moveView, err error) {
	v, err := readMap(ctx, f.HTTP(1))
	if err != nil {
		return did, err
	}
	i := slices.IndexFunc(v.Groups, func(g groupView) bool { return g.Group == group })
	if i < 0 {
		return did, errors.New("it is not in the map")
	}
	from := v.Groups[i].Log
	to := otherLog(v, from, n)
	if to == "" {
		return did, errors.New("no other log is open")
	}
	var rs struct {
		Moves []moveView `json:"moves"`
	}
	url := "http://" + f.HTTP(v.hosts()[from]) + "/v1/map/move"
	if err := callHTTP(ctx, "POST", url, map[string]any{"groups": []int{group}, "to": to}, &rs); err != nil {
		return did, err
	}
	if len(rs.Moves) != 1 {
		return did, fmt.Errorf("%d moves were made", len(rs.Moves))
	}
	return rs.Moves[0], nil
}

func otherLog(v mapView, not string, n int) string {
	var open []string
	for _, l := range v.Logs {
		if l.State == "open" && l.ID != not {
			open = append(open, l.ID)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return open[n%len(open)]
}
