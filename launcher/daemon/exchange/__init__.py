"""What the daemons of a job's nodes tell each other, through the run folder and the store of the rendezvous."""
