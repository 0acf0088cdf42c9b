package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/internal/ident"
)

func clusterCommand() *cobra.Command {
	var f opsFlags
	cmd := &cobra.Command{Use: "cluster", Short: "Show the cluster; change who votes; raise its feature level", Args: noArgs}
	f.add(cmd)
	voters := &cobra.Command{
		Use:     "voters",
		Short:   "List who votes; add, replace, demote, remove",
		Example: "  skein cluster voters list\n  skein cluster voters replace 3 4",
		Long: `Voters elect the active controller, keep its log, and hold the map's etcd, unless that is an external one. Have 1, 3 or 5.
A voter that is gone for good is replaced by another member.`,
		Args: noArgs,
	}
	voters.AddCommand(
		votersVerb(&f, "list", "List the members, and which of them vote", ""),
		votersVerb(&f, "add", "Give a member a vote", `Its etcd member is started, catches up, and then votes; after that the broker does.
All voters must have been there for five seconds before: the command waits for that. While one is away, none can be added: replace that one.`),
		votersVerb(&f, "replace", "Give the vote of one broker to another member", `For a voter that is gone for good, while a majority of the voters is there. One whose process runs goes on as a plain broker.
Ask again if it was interrupted.`),
		votersVerb(&f, "demote", "Take a member's vote", `The broker goes on as a plain one. The last voter cannot be demoted. Two voters are
worse than one, as both are needed: to change one for another use replace.`),
		votersVerb(&f, "remove", "Make a broker no member any more", `For a broker that is gone for good: one whose process runs is refused. If it comes back all the same, with its directory, it
joins again as a plain broker, and what is on its disk can be read.`),
	)
	cmd.AddCommand(clusterStatus(&f), voters, levelCommand(&f))
	return cmd
}

func votersVerb(f *opsFlags, verb, short, long string) *cobra.Command {
	use, example, args := verb+" BROKER", "  skein cluster voters "+verb+" 4", cobra.ExactArgs(1)
	rq := votersRequest{Verb: verb}
	cmd := &cobra.Command{Short: short, Long: long}
	switch verb {
	case "list":
		use, example, args = verb, "  skein cluster voters list", cobra.NoArgs
	case "replace":
		use, example, args = verb+" BROKER BY", "  skein cluster voters replace 3 4", cobra.ExactArgs(2)
	case "add":
		cmd.Aliases, rq.Verb = []string{"promote"}, "promote"
	}
	cmd.Use, cmd.Example = use, example
	cmd.Args = func(cmd *cobra.Command, in []string) error {
		if err := args(cmd, in); err != nil {
			return usageError{err}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, in []string) error {
		for i, to := range []*ident.Broker{&rq.Broker, &rq.By}[:len(in)] {
			id, err := brokerArg(in[i:])
			if err != nil {
				return err
			}
			*to = id
		}
		var out []voterState
		if err := f.changeVoters(cmd.Context(), rq, &out); err != nil {
			return err
		}
		if verb != "list" {
			warnEven(cmd.ErrOrStderr(), out)
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), out)
		}
		t := newTable(cmd.OutOrStdout(), "BROKER", "INTERNAL", "VOTES")
		for _, m := range out {
			t.row(m.Broker, m.Address, yesNo(m.Voter))
		}
		return t.flush()
	}
	return cmd
}

// changeVoters asks a broker until it has answered: one whose own vote goes rebuilds itself for that, and may do so before it
// has told the result. Each change can be asked for twice.
func (f *opsFlags) changeVoters(ctx context.Context, rq votersRequest, out *[]voterState) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	err := f.call(ctx, "POST", "/v1/cluster/voters", rq, out)
	for lost := broke(err); lost && err != nil; {
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return err
		}
		var refused *refusal
		err = f.call(ctx, "POST", "/v1/cluster/voters", rq, out)
		lost = err != nil && (broke(err) || errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) && refused.code == http.StatusServiceUnavailable)
	}
	return err
}

// broke reports that a connection ended before the answer had come.
func broke(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// warnEven tells what an even number of voters is worth.
func warnEven(out io.Writer, members []voterState) {
	votes := 0
	for _, m := range members {
		if m.Voter {
			votes++
		}
	}
	if votes > 0 && votes%2 == 0 {
		fmt.Fprintf(out, "warning: %d brokers vote: they bear the loss of %d, no more than %d would: give another one a vote (skein cluster voters add N); "+
			"to change one voter for another use skein cluster voters replace\n", votes, votes/2-1, votes-1)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func clusterStatus(f *opsFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show brokers, voters, etcd members and logs as one broker knows them",
		Example: "  skein cluster status --http 127.0.0.1:9644",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v clusterView
			if err := f.call(cmd.Context(), "GET", "/v1/cluster", nil, &v); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if f.json {
				return printJSON(out, v)
			}
			controller := "none is known"
			if v.Controller != nil {
				controller = fmt.Sprintf("broker %d, term %d", *v.Controller, v.Term)
			}
			fmt.Fprintf(out, "cluster %s, as broker %d knows it; active controller: %s\n", v.Cluster, v.Broker, controller)
			if v.Waiting != "" {
				fmt.Fprintln(out, v.Waiting)
			}
			t := newTable(out, "BROKER", "STATE", "VOTES", "INTERNAL", "RACK", "GROUPS")
			for _, b := range v.Brokers {
				state := "registered"
				switch {
				case !b.Registered:
					state = "away"
				case b.Silent:
					state = "does not answer"
				}
				t.row(b.Broker, state, yesNo(b.Voter), b.Internal, b.Rack, b.Groups)
			}
			if err := t.flush(); err != nil {
				return err
			}
			fmt.Fprintln(out)
			t = newTable(out, "LOG", "BROKER", "EPOCH", "STATE", "GROUPS", "WITNESSES")
			for _, l := range v.Logs {
				var w []string
				for _, b := range l.Witnesses {
					w = append(w, strconv.Itoa(int(b)))
				}
				t.row(l.ID, l.Broker, l.Epoch, l.State, l.Groups, strings.Join(w, ","))
			}
			if err := t.flush(); err != nil {
				return err
			}
			fmt.Fprintln(out)
			t = newTable(out, "ETCD", "URL", "ROLE")
			for _, e := range v.Etcd {
				role := map[bool]string{true: "leader"}[e.Leader]
				if e.Learner {
					role = "learner"
				}
				t.row(e.Name, e.URL, role)
			}
			return t.flush()
		},
	}
}
