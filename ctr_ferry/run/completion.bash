# Completion of @PROGRAM@ for bash.
@FUNCTION@() {
    local kind line
    COMPREPLY=()
    {
        IFS= read -r kind && IFS= read -r line || return 0
        while IFS= read -r line; do COMPREPLY+=("$line"); done
    } < <(@ASK@ bash @PROGRAM@ "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null </dev/null)
    case $kind in
        files) compopt -o default 2>/dev/null ;;
        folders) compopt -o dirnames 2>/dev/null ;;
    esac
}
complete -F @FUNCTION@ @PROGRAM@
