package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// outcome is one named thing that a command tried.
type outcome struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"`

	err error
}

// outcomes prints what was tried, one line each by name, and returns the failures joined.
func (f *kafkaFlags) outcomes(cmd *cobra.Command, list []outcome) error {
	slices.SortFunc(list, func(a, b outcome) int { return strings.Compare(a.Name, b.Name) }) // kadm's order is that of random ids
	var failed []error
	touched := false
	for _, o := range list {
		if o.Error != "" {
			failed = append(failed, fmt.Errorf("%s: %w", o.Name, o.err))
			touched = touched || !refusesValue(o.err)
			continue
		}
		touched = true
		if !f.json {
			fmt.Fprintln(cmd.OutOrStdout(), o.Name)
		}
	}
	if f.json {
		if err := printJSON(cmd.OutOrStdout(), list); err != nil {
			return err
		}
	}
	err := errors.Join(failed...)
	if err != nil && !touched {
		return usageError{err}
	}
	return err
}

func outcomeOf(name string, err error) outcome {
	o := outcome{Name: name, err: err}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}
