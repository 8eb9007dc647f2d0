// Every path, attribute name and version of the files that outlive the program: whoever reads them goes by this page.
//
// Strings are fixed-length UTF-8, numbers little endian. A reader refuses a file whose schema_version is above its own.
#pragma once

#include <array>
#include <cstdint>

namespace switchyard::io::schema {

// Root attributes of every kind of file.
inline constexpr const char* kFormat = "format";                 // string: one of the four below
inline constexpr const char* kSchemaVersion = "schema_version";  // int64
inline constexpr const char* kCheckpointFormat = "switchyard-checkpoint";
inline constexpr const char* kResultsFormat = "switchyard-results";
inline constexpr const char* kBenchFormat = "switchyard-bench";
inline constexpr const char* kStudyFormat = "switchyard-study";
inline constexpr const char* kConfig = "config";  // dataset, scalar string: the whole configuration, as INI text

// Root attributes of results and checkpoints, strings: what bits depend on beside configuration and data.
inline constexpr const char* kLibraries = "libraries";  // with their versions
inline constexpr const char* kDevice = "device";        // as its maker calls it

// Checkpoint: one file per saved step, `checkpoint-<step, 8 digits>.h5`.
inline constexpr std::int64_t kCheckpointVersion = 1;
inline constexpr const char* kStep = "step";      // int64: optimiser steps done
inline constexpr const char* kDigest = "digest";  // string: XXH3-128 over the parameters, 32 hex digits, or empty
inline constexpr const char* kScores =
    "scores";  // string, where the run has any: best accuracies, reductions of the rate
// string, where the run was stopped before or during an evaluation after this step: the run that goes on makes it first
inline constexpr const char* kEvaluation = "evaluation";
inline constexpr const char* kEvaluationDue = "due";
inline constexpr const char* kOrigin = "origin";  // string, of results too: what the parameters started from, in words
inline constexpr const char* kHeaderChecksum =
    "header_checksum";  // uint64: XXH3-64 over everything but the arrays' data
// Every other root attribute is a string of the caller's. Every dataset but `config` is an array, float32, of its
// global shape; of an expert array, dimension 0 is the expert. Its attribute:
inline constexpr const char* kChecksum = "checksum";  // uint64: XXH3-64 of the data, scalar; (experts) of each expert's

// Results: one file per run. Datasets grow along dimension 0, one row per logged step. `step` is written after its
// row's other fields, so its length says how many rows are whole.
inline constexpr std::int64_t kResultsVersion = 3;
inline constexpr std::int64_t kRoutingVersion = 2;                   // the first with all of routing/*
inline constexpr const char* kUnits = "units";                       // attribute of each dataset below: string
inline constexpr const char* kStepsStep = "steps/step";              // (rows) int64: optimiser steps done
inline constexpr const char* kEvaluationsStep = "evaluations/step";  // (rows) int64
inline constexpr const char* kRoutingStep = "routing/step";          // (rows) int64; no routing/* without a mixture
inline constexpr const char* kTreesStep = "trees/step";              // (rows) int64; no trees/* without a tree
inline constexpr const char* kStepUnits = "steps";
// Root attributes, strings: the blocks with a mixture, "1,3,5"; these are the `layers` of routing/*, in this order. The
// blocks with a tree, of trees/* likewise, since version 3.
inline constexpr const char* kMixtureBlocks = "mixture_blocks";
inline constexpr const char* kTreeBlocks = "tree_blocks";
// Of runs on a GPU: (algorithms) string, the ones that the library of matrix products chose on rank 0, each with the
// shape of its products. Grows while the run goes on.
inline constexpr const char* kProductAlgorithms = "product_algorithms";
// Root attributes, strings since version 3, numbers in decimal digits; empty until the end, and where not measured. The
// best accuracy on the training split (a fraction); the accuracy on the test split when that on the validation split
// was best; and the epochs done when each was observed. With early stopping, up to where each had stopped rising.
inline constexpr const char* kMemorisationAccuracy = "memorisation_accuracy";
inline constexpr const char* kMemorisationEpoch = "memorisation_epoch";
inline constexpr const char* kGeneralisationAccuracy = "generalisation_accuracy";
inline constexpr const char* kGeneralisationEpoch = "generalisation_epoch";
// Likewise of runs on data of known clusters alone: nats, after the last step. The entropy of the clusters of the
// training samples that an expert is sent, mean over experts by how many these are; 0: each has its own (lib/train/).
inline constexpr const char* kDispatchEntropy = "dispatch_entropy";

struct Column {
  const char* path;
  const char* units;
  std::int64_t since = 1;  // the first version of its format that has it
};

// (rows) float64 each. Auxiliary losses as they were added to the loss: weighted, summed over layers.
inline constexpr std::array<Column, 17> kStepsColumns = {{
    {"steps/epoch", "epochs"},            // epochs done, with fraction
    {"steps/loss", "nats"},               // cross entropy, mean over the batch, and over both passes where it has two
    {"steps/balance_loss", "1"},          //
    {"steps/z_loss", "1", 2},             //
    {"steps/importance_loss", "1", 2},    //
    {"steps/load_loss", "1", 2},          //
    {"steps/consistency_loss", "1", 2},   //
    {"steps/hardening_loss", "1", 3},     // of trees
    {"steps/accuracy", "1"},              // fraction of the batch
    {"steps/learning_rate", "1"},         //
    {"steps/gradient_norm", "1"},         // global, before clipping
    {"steps/samples_per_second", "1/s"},  // all ranks together
    {"steps/seconds", "s"},               // whole step, on rank 0, as are the four parts
    {"steps/seconds_compute", "s"},       //
    {"steps/seconds_exchange", "s"},      // tokens to experts and back
    {"steps/seconds_reduce", "s"},        // sums of gradients over ranks
    {"steps/seconds_wait", "s"},          // for slower ranks
}};
inline constexpr std::array<Column, 8> kEvaluationsColumns = {{
    {"evaluations/epoch", "epochs"},
    {"evaluations/loss", "nats"},                // mean over the test set
    {"evaluations/accuracy", "1"},               // fraction of the test set
    {"evaluations/validation_loss", "nats", 3},  // NaN where not measured, as are the next three
    {"evaluations/validation_accuracy", "1", 3},
    {"evaluations/training_loss", "nats", 3},  // in evaluation mode, without augmentation
    {"evaluations/training_accuracy", "1", 3},
    {"evaluations/seconds", "s"},  // of all splits together
}};
// (rows, layers, experts) float32 each. A token counts once for each expert that was chosen for it.
inline constexpr std::array<Column, 3> kRoutingExpertColumns = {{
    {"routing/load", "tokens"},        // those over capacity included
    {"routing/dropped", "tokens", 2},  // over capacity; (rows, layers) in version 1
    {"routing/weight", "1", 2},        // mean gate weight of its tokens, NaN where it has none
}};
// (rows, layers) float32 each; of the load all but gate_entropy.
inline constexpr std::array<Column, 5> kRoutingLayerColumns = {{
    {"routing/load_cv", "1", 2},          // coefficient of variation over experts, by the population's deviation
    {"routing/max_over_mean", "1", 2},    // the fullest expert's tokens
    {"routing/load_entropy", "nats"},     //
    {"routing/gate_entropy", "nats", 2},  // mean over tokens; NaN where the router has no probabilities
    {"routing/dead_experts", "1", 2},     // share of experts without a token
}};

// (rows, layers, nodes) and (rows, layers, leaves) float32, means over the batch's tokens, nodes = leaves - 1, nodes by
// level and from left to right.
inline constexpr Column kTreesEntropy = {"trees/entropy", "nats", 3};  // of each node's choice
inline constexpr Column kTreesShare = {"trees/share", "1", 3};         // of each leaf in a token's output

// Benchmarks: `switchyard bench kernels` writes kernels/*, `bench exchange` exchange/*, `bench inference` inference/*.
// Columns of one length, a row for each line of the printed table. Beside format, schema_version and the dataset config
// the root has these attributes, all of them strings, numbers in decimal digits: benchmark ("kernels"), command, date
// (UTC, ISO 8601), host and machine (of rank 0), model (in words), ranks, threads (of each rank; the most that were
// used), experts_over (ranks that share the experts), steps (repetitions behind a median), switchyard (its version),
// versions (of the libraries).
inline constexpr std::int64_t kBenchVersion = 1;
inline constexpr Column kKernelsName = {"kernels/name", "1"};             // string
inline constexpr Column kKernelsShape = {"kernels/shape", "1"};           // string
inline constexpr Column kKernelsUnit = {"kernels/unit", "1"};             // string: of rate and limit
inline constexpr Column kKernelsLimitedBy = {"kernels/limited_by", "1"};  // string: what `limit` is the rate of
inline constexpr Column kKernelsSeconds = {"kernels/seconds",
                                           "s"};  // float64, as all below: processor time of one call
inline constexpr Column kKernelsWork = {"kernels/work", "FLOP or B"};     // of one call, by `unit`
inline constexpr Column kKernelsRate = {"kernels/rate", "see unit"};      //
inline constexpr Column kKernelsLimit = {"kernels/limit", "see unit"};    // measured in turn with it
inline constexpr Column kKernelsShare = {"kernels/share", "1"};           // rate / limit
inline constexpr Column kExchangeTokens = {"exchange/tokens", "tokens"};  // int64: of each rank
inline constexpr Column kExchangeLoad = {"exchange/load", "1"};           // string: over experts
inline constexpr Column kExchangeBytes = {"exchange/bytes", "B"};         // int64: busiest rank, to others, both ways
inline constexpr Column kExchangeSeconds = {"exchange/seconds", "s"};     // float64, as all below: dispatch + combine
inline constexpr Column kExchangeBare = {"exchange/seconds_alltoallv", "s"};   // MPI_Alltoallv of the same messages
inline constexpr Column kExchangeCounts = {"exchange/seconds_counts", "s"};    // of `seconds`: agreeing on counts
inline constexpr Column kExchangeKernels = {"exchange/seconds_kernels", "s"};  // beside it: the kernels at both ends
inline constexpr Column kExchangeLeast = {"exchange/seconds_least", "s"};      // of the fastest step, not the median
inline constexpr Column kExchangeBareLeast = {"exchange/seconds_alltoallv_least", "s"};
inline constexpr Column kInferencePart = {"inference/part", "1"};        // string: layer or model
inline constexpr Column kInferenceNetwork = {"inference/network", "1"};  // string: dense, moe top-1, fff, ...
inline constexpr Column kInferenceLeaf = {"inference/leaf", "units"};    // int64: of a leaf or an expert; 0: dense
inline constexpr Column kInferenceThreads = {"inference/threads", "1"};  // int64
inline constexpr Column kInferenceBatch = {"inference/batch", "1"};      // int64: tokens of a layer, samples of a model
inline constexpr Column kInferenceSeconds = {"inference/seconds", "s"};  // float64, as all below: of a batch
inline constexpr Column kInferenceLeast = {"inference/seconds_least", "s"};  // of the fastest step, not the median
inline constexpr Column kInferenceRate = {"inference/rate", "1/s"};          // batch / seconds
inline constexpr Column kInferenceSpeedUp = {"inference/speed_up", "1"};     // over dense, measured in turn: of medians
inline constexpr Column kInferenceSpeedUpLeast = {"inference/speed_up_least", "1"};  // and of the fastest steps
inline constexpr Column kInferenceWeights = {"inference/weights", "B"};              // parameters and packed copies
inline constexpr Column kInferenceActivations = {"inference/activations", "B"};      // the most at a time

// A study, collected: /runs/NAME is an external link, by a path relative to this file, to the results of a run that has
// any; table/* are columns with a row for each run. axes/KEY, float64 where all values are numbers and strings
// otherwise, has the run's value of each key with an axis. The dataset config is the study's text, the attribute study
// its name.
inline constexpr std::int64_t kStudyVersion = 2;
inline constexpr const char* kStudyRuns = "runs";
inline constexpr const char* kStudyAxes = "axes/";
inline constexpr const char* kStudyName = "table/name";          // string
inline constexpr const char* kStudyState = "table/state";        // string: done, running, failed, pending, foreign
inline constexpr const char* kStudyRanks = "table/ranks";        // int64
inline constexpr const char* kStudyIdentity = "table/identity";  // string: XXH3-64 of the configuration's keys
inline constexpr const char* kStudyDigest = "table/digest";      // string, as in the results; empty until the end
struct StudyOutcome {
  Column column;
  const char* attribute;  // of the results
};
// float64 each; NaN where the run has not come to it, or does not measure it.
inline constexpr std::array<StudyOutcome, 9> kStudyOutcomes = {{
    {{"table/test_accuracy", "1"}, "test_accuracy"},  // fraction of the test set
    {{"table/test_loss", "nats"}, "test_loss"},
    {{"table/seconds_per_epoch", "s"}, "seconds_per_epoch"},
    {{"table/parameters_stored", "1"}, "parameters_stored"},
    {{"table/parameters_active", "1"}, "parameters_active"},
    {{"table/memorisation_accuracy", "1", 2}, kMemorisationAccuracy},
    {{"table/memorisation_epoch", "epochs", 2}, kMemorisationEpoch},
    {{"table/generalisation_accuracy", "1", 2}, kGeneralisationAccuracy},
    {{"table/generalisation_epoch", "epochs", 2}, kGeneralisationEpoch},
}};

}  // namespace switchyard::io::schema
