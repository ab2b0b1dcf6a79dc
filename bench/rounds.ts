import { median } from './report.ts'
import { medians, type Sample, type Scene, type Stage, takeSample } from './sample.ts'

/** A scene and what came of it. */
export interface Result {
  readonly scene: Scene
  readonly median: Sample
  readonly rounds: readonly Sample[]
}

/** How often, and how long. */
export interface Effort {
  readonly rounds: number
  readonly warmupMs: number
  readonly durationMs: number
}

const usualRunInMs = 400
const quickRunInMs = 150

/**
 * Measures all scenes in turn, round after round, so that whatever else the machine does meets all of them, and returns the
 * medians. Before the first round each scene is run in for `runInMs`, unrecorded.
 */
export async function measureInTurn(
  stage: Stage,
  scenes: readonly Scene[],
  rounds: number,
  runInMs = rounds === 1 ? quickRunInMs : usualRunInMs,
): Promise<Result[]> {
  for (const scene of scenes) await takeSample(stage, { ...scene, warmupMs: 0, durationMs: runInMs })
  const samples = scenes.map((): Sample[] => [])
  for (let round = 1; round <= rounds; round += 1) {
    for (const [index, scene] of scenes.entries()) {
      const sample = await takeSample(stage, scene)
      samples[index]?.push(sample)
      process.stderr.write(
        `round ${round} of ${rounds}, ${scene.target.name}, ${scene.service.name}, ${scene.callers} callers: ${sample.perSecond.toFixed(0)}/s\n`,
      )
    }
  }
  return scenes.map((scene, index) => ({
    scene,
    median: medians(samples[index] ?? []),
    rounds: samples[index] ?? [],
  }))
}

/** The result of the scene with the same service and callers by another way. */
export function counterpart(results: readonly Result[], { scene }: Result, targetName: string): Result | undefined {
  return results.find(
    (other) =>
      other.scene.target.name === targetName &&
      other.scene.service.name === scene.service.name &&
      other.scene.callers === scene.callers,
  )
}

/**
 * The median over the rounds of what `compare` says of a result and its counterpart in the same round: what else the machine
 * did in that round met both. NaN without a counterpart.
 */
export function compareRounds(
  results: readonly Result[],
  result: Result,
  targetName: string,
  compare: (own: Sample, other: Sample) => number,
): number {
  const others = counterpart(results, result, targetName)?.rounds ?? []
  return median(
    others.flatMap((other, round) => result.rounds.slice(round, round + 1).map((own) => compare(own, other))),
  )
}

/** Throughput as a share of the counterpart's. */
export function shareOf(results: readonly Result[], result: Result, targetName: string): number {
  return compareRounds(results, result, targetName, (own, other) => own.perSecond / other.perSecond)
}

/**
 * What the throughput's share would be if a full core were all that there is: the counterpart's CPU a call over that of the
 * result, with its Postgres. On a busy machine it says more than throughput does.
 */
export function cpuShareOf(results: readonly Result[], result: Result, targetName: string): number {
  return compareRounds(results, result, targetName, (own, other) => other.cpuUs / (own.cpuUs + own.childrenCpuUs))
}
