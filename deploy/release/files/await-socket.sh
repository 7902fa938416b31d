#!/bin/sh
# await-socket PATH: returns when a program that has just been started listens there, or after ten seconds: whoever starts the unit
# can talk to the program then.
tries=200
while [ ! -S "$1" ] && [ "$tries" -gt 0 ]; do
  tries=$((tries - 1))
  sleep 0.05
done
[ -S "$1" ]
