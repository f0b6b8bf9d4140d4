# Progress of a long build, read by the scripts that compile llama.cpp. Uses say of theirs.
# shellcheck shell=bash

# One line of ninja's in twenty, with the time that is left if the other steps take as long; the shell reads line by
# line where awk would buffer.
show_progress() {
	local line done_steps all_steps shown=0 started=$SECONDS
	while IFS= read -r line; do
		[[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
		done_steps=${BASH_REMATCH[1]} all_steps=${BASH_REMATCH[2]}
		if [ $((20 * done_steps / all_steps)) -gt "$shown" ] && [ "$done_steps" -lt "$all_steps" ]; then
			shown=$((20 * done_steps / all_steps))
			say "$done_steps of $all_steps steps, about $((((SECONDS - started) * (all_steps - done_steps) / done_steps + 59) / 60)) min left"
		fi
	done
}
