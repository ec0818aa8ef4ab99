# Completion of @PROGRAM@ for zsh.
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i -D }
@FUNCTION@() {
    local -a answer
    answer=("${(@f)$(@ASK@ zsh @PROGRAM@ "${(@)words[1,CURRENT-1]}" "$QIPREFIX$PREFIX" 2>/dev/null </dev/null)}")
    case $answer[1] in
        words) (( $#answer > 2 )) && compadd -- "${(@)answer[3,-1]}" ;;
        files) compset -P "${(b)answer[2]}"; _files ;;
        folders) compset -P "${(b)answer[2]}"; _files -/ ;;
    esac
}
compdef @FUNCTION@ @PROGRAM@
