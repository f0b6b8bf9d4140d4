// Package prometheus tests what operators see when something goes wrong: a real Prometheus scrapes real proxies under
// load, with mock engines behind them, and evaluates the rules of deploy/prometheus with every duration divided by 30.
// One service stays healthy and each other one has one fault; the tests assert which alerts that raises, and that it
// raises no others. What alerts do over hours is tested by promtool, with the tests beside the rules.
//
// scripts/test-prometheus.sh builds the programs and runs it; without PROMETHEUS in the environment the tests are
// skipped.
package prometheus
