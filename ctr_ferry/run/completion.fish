# Completion of @PROGRAM@ for fish.
function @FUNCTION@
    set -l token (commandline -ct)
    set -l answer (env @ASK@ fish @PROGRAM@ (commandline -opc) "$token" 2>/dev/null </dev/null)
    set -l head "$answer[2]"
    set -l rest (string sub -s (math 1 + (string length -- "$head")) -- "$token")
    switch "$answer[1]"
        case words
            test (count $answer) -gt 2; and printf '%s\n' $answer[3..-1]
        case files
            for each in (__fish_complete_path "$rest")
                printf '%s%s\n' "$head" $each
            end
        case folders
            for each in (__fish_complete_directories "$rest" '')
                printf '%s%s\n' "$head" $each
            end
    end
end
# fish has one for Fabric 1. Let fish load it now, so that it does not come back later.
complete -C '@PROGRAM@ --port=' >/dev/null 2>&1
complete -c @PROGRAM@ -e
complete -c @PROGRAM@ -f -a '(@FUNCTION@)'
