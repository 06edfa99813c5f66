// Not run by this project: see README.md. build.gradle.kts of the app:
//
//     android { androidResources { noCompress += "tflite" } }
//     dependencies { implementation("com.google.ai.edge.litert:litert:1.4.2") }
//
// and model.float32.tflite in src/main/assets.

import android.content.Context
import java.io.FileInputStream
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter

const val MODEL_FILE = "model.float32.tflite"
const val ROWS = 200
val COLUMNS = listOf("rt", "correct")
val PARAMETERS = listOf("v", "a", "t0")
const val SORTED_ROWS = true

/** Estimates of one dataset at a time, on the CPU. Not for several threads at once. */
class Estimator(context: Context) : AutoCloseable {
    private val interpreter = Interpreter(
        context.assets.openFd(MODEL_FILE).use { asset ->
            FileInputStream(asset.fileDescriptor).use { file ->
                file.channel.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
            }
        },
        Interpreter.Options().setUseXNNPACK(true).setNumThreads(1),
    )

    /** dataset: ROWS rows, each with the values of COLUMNS. Gives one number for each of PARAMETERS. */
    fun estimate(dataset: List<FloatArray>): Map<String, Float> {
        require(dataset.size == ROWS) { "${dataset.size} rows, the model takes $ROWS" }
        dataset.forEachIndexed { row, values ->
            require(values.size == COLUMNS.size) { "row $row: ${values.size} values, not $COLUMNS" }
            require(values.all { it.isFinite() }) { "row $row: not a finite number; leave this dataset out" }
        }
        val order = compareBy<FloatArray>({ it[0] }, { it[1] })
        val rows = if (SORTED_ROWS) dataset.sortedWith(order) else dataset
        val estimates = arrayOf(FloatArray(PARAMETERS.size))
        interpreter.run(arrayOf(rows.toTypedArray()), estimates)
        // The file's bound is proved; whether this device keeps it is checked here.
        check(estimates[0].all { it.isFinite() && it >= java.lang.Float.MIN_NORMAL }) { "not positive: $MODEL_FILE" }
        return PARAMETERS.zip(estimates[0].toList()).toMap()
    }

    override fun close() = interpreter.close()
}
