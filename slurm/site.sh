# What differs between clusters; every job script sources it. Values in the environment win over those here.

# Modules, or whatever else puts this program's MPI on the path:
#   module purge
#   module load gcc/12 openmpi/4.1 hdf5-mpi/1.14

# Account, partition and the like are sbatch's: on its command line, or in the environment that it is started from:
#   export SBATCH_ACCOUNT=project123 SBATCH_PARTITION=compute

# The program, as the nodes see it.
: "${SWITCHYARD:=$SWITCHYARD_ROOT/build/release/switchyard}"

# What starts the ranks: the mpirun of the MPI that the program was built with, or srun where SLURM speaks that MPI's
# PMI (`srun --mpi=list`; Debian 12: pmix, not pmi2). Further words are passed on; one that holds
# spaces stands in quotes.
: "${SWITCHYARD_LAUNCHER:=mpirun}"
#   : "${SWITCHYARD_LAUNCHER:=srun --mpi=pmix}"

# The network, where Open MPI's own choice is wrong:
#   export OMPI_MCA_btl_tcp_if_include=ib0
# Seconds without a word from a node until mpirun asks there, and between questions, and how many (scripts/mpirun.sh):
#   export OMPI_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=2 OMPI_MCA_oob_tcp_keepalive_probes=3
