package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// outcome is one named thing that a command tried.
type outcome struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"`
}

// outcomes prints what was tried, one line each, and returns the failures joined.
func (f *kafkaFlags) outcomes(cmd *cobra.Command, list []outcome) error {
	var failed []error
	for _, o := range list {
		if o.Error != "" {
			failed = append(failed, fmt.Errorf("%s: %s", o.Name, o.Error))
		} else if !f.json {
			fmt.Fprintln(cmd.OutOrStdout(), o.Name)
		}
	}
	if f.json {
		if err := printJSON(cmd.OutOrStdout(), list); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func outcomeOf(name string, err error) outcome {
	o := outcome{Name: name}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}
