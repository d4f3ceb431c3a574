// pgjdbc: DatabaseMetaData, server-prepared statements, batches, fetchSize, autosave, CopyManager, cancel and timeouts.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.util.PSQLException;

public class Jdbc {
  static final Map<String, String> ENV = System.getenv();
  static final String ORG = ENV.get("PARTYWALL_ORG");
  static final int TIMES = Integer.parseInt(ENV.getOrDefault("PARTYWALL_TIMES", "1000"));
  static final int CONNECTIONS = Integer.parseInt(ENV.getOrDefault("PARTYWALL_CONNECTIONS", "20"));
  static final int ROWS = Integer.parseInt(ENV.getOrDefault("PARTYWALL_ROWS", "5000"));
  static final List<String> GROUPS = List.of(ENV.getOrDefault("PARTYWALL_GROUPS", "").split(","));
  static final String INSERT = "INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ";
  static boolean failed = false;

  interface Work { void run() throws Exception; }

  static void group(String name, Work work) {
    if (!GROUPS.contains("") && !GROUPS.contains(name)) return;
    try {
      work.run();
      System.out.println("ok " + name);
    } catch (Throwable error) {
      failed = true;
      int line = 0;
      for (StackTraceElement frame : error.getStackTrace()) {
        if (line == 0 && frame.getClassName().startsWith("Jdbc") && !frame.getMethodName().matches("equal|raises")) line = frame.getLineNumber();
      }
      System.out.println("FAIL " + name + ": line " + line + ": " + String.valueOf(error).replaceAll("\\s+", " "));
    }
  }

  static Connection connect(String... more) throws SQLException {
    Properties all = new Properties();
    all.setProperty("user", ENV.get("PGUSER"));
    all.setProperty("password", ENV.get("PGPASSWORD"));
    all.setProperty("sslmode", ENV.get("PGSSLMODE"));
    for (int at = 0; at < more.length; at += 2) all.setProperty(more[at], more[at + 1]);
    return DriverManager.getConnection(
        "jdbc:postgresql://" + ENV.get("PGHOST") + ":" + ENV.get("PGPORT") + "/" + ENV.get("PGDATABASE"), all);
  }

  static void equal(Object got, Object expected) {
    if (!Objects.equals(got, expected)) throw new AssertionError(got + " instead of " + expected);
  }

  static SQLException raises(String state, Work work) throws Exception {
    try {
      work.run();
    } catch (SQLException error) {
      SQLException last = error instanceof BatchUpdateException && error.getNextException() != null ? error.getNextException() : error;
      equal(last.getSQLState(), state);
      return last;
    }
    throw new AssertionError("no error, where " + state + " was due");
  }

  static String one(Connection conn, String sql) throws SQLException {
    try (Statement statement = conn.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      return rows.getString(1);
    }
  }

  static void run(Connection conn, String sql) throws SQLException {
    try (Statement statement = conn.createStatement()) {
      statement.execute(sql);
    }
  }

  static Set<String> column(ResultSet rows, String name) throws SQLException {
    Set<String> all = new TreeSet<>();
    while (rows.next()) all.add(rows.getString(name));
    return all;
  }

  static String unique(String prefix) {
    return prefix + "-" + UUID.randomUUID();
  }

  public static void main(String[] arguments) {
    group("connect", () -> {
      try (Connection conn = connect("ApplicationName", "jdbc test", "currentSchema", "public", "options", "-c statement_timeout=61s")) {
        equal(one(conn, "SHOW application_name"), "jdbc test");
        equal(one(conn, "SHOW search_path"), "public");
        equal(one(conn, "SHOW statement_timeout"), "61s");
        equal(conn.isValid(5), true);
        conn.setClientInfo("ApplicationName", "renamed");
        equal(one(conn, "SHOW application_name"), "renamed");
        equal(conn.getSchema(), "public");
        conn.setSchema("pg_catalog");
        equal(one(conn, "SELECT current_schema()"), "pg_catalog");
      }
    });
    group("introspection", () -> {
      try (Connection conn = connect()) {
        DatabaseMetaData data = conn.getMetaData();
        if (!column(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME").contains("runs")) throw new AssertionError("no runs");
        equal(column(data.getColumns(null, "public", "pipelines", "%"), "COLUMN_NAME").size(), 7);
        equal(column(data.getPrimaryKeys(null, "public", "runs"), "COLUMN_NAME"), Set.of("org_id", "id"));
        equal(column(data.getImportedKeys(null, "public", "quality_results"), "PKTABLE_NAME"), Set.of("datasets", "runs"));
        equal(column(data.getIndexInfo(null, "public", "runs", false, false), "INDEX_NAME").contains("runs_started"), true);
        everything(data);
        column(data.getSchemas(), "TABLE_SCHEM");
        column(data.getTypeInfo(), "TYPE_NAME");
        column(data.getProcedures(null, "public", "%"), "PROCEDURE_NAME");
        column(data.getFunctions(null, "partywall", "%"), "FUNCTION_NAME");
        column(data.getTablePrivileges(null, "public", "runs"), "PRIVILEGE");
        column(data.getClientInfoProperties(), "NAME");
        try (PreparedStatement statement = conn.prepareStatement("SELECT name, created_at FROM pipelines WHERE id = ?")) {
          equal(statement.getMetaData().getColumnTypeName(2), "timestamptz");
          equal(statement.getParameterMetaData().getParameterTypeName(1), "uuid");
        }
      }
    });
    group("types", Jdbc::types);
    group("transactions", Jdbc::transactions);
    group("autosave", () -> {
      try (Connection conn = connect("autosave", "always")) {
        conn.setAutoCommit(false);
        run(conn, "CREATE TEMPORARY TABLE kept (a int) ON COMMIT DROP");
        run(conn, "INSERT INTO kept VALUES (1)");
        raises("22012", () -> run(conn, "SELECT 1 / 0"));
        equal(one(conn, "SELECT count(*) FROM kept"), "1");
        conn.rollback();
      }
    });
    group("streaming", () -> {
      try (Connection conn = connect(); PreparedStatement statement = conn.prepareStatement("SELECT g FROM generate_series(1, ?) g")) {
        conn.setAutoCommit(false);
        statement.setFetchSize(100);
        for (int round = 0; round < 7; round++) {
          statement.setInt(1, ROWS);
          long total = 0;
          try (ResultSet rows = statement.executeQuery()) {
            while (rows.next()) total += rows.getInt(1);
          }
          equal(total, ROWS * (ROWS + 1L) / 2);
        }
        statement.setInt(1, 100000);
        ResultSet early = statement.executeQuery();
        early.next();
        early.close();
        statement.setMaxRows(10);
        equal(column(statement.executeQuery(), "g").size(), 10);
        conn.commit();
      }
    });
    group("copy", () -> {
      try (Connection conn = connect()) {
        var copy = conn.unwrap(PGConnection.class).getCopyAPI();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        equal(copy.copyOut("COPY (SELECT generate_series(1, 1000)) TO STDOUT", out), 1000L);
        run(conn, "CREATE TEMPORARY TABLE loaded (a int, b text)");
        equal(copy.copyIn("COPY loaded FROM STDIN (FORMAT csv)", new ByteArrayInputStream("1,x\n2,y\n".getBytes())), 2L);
        raises("22P02", () -> copy.copyIn("COPY loaded FROM STDIN (FORMAT csv)", new ByteArrayInputStream("x,x\n".getBytes())));
        equal(one(conn, "SELECT count(*) FROM loaded"), "2");
      }
    });
    group("cancel", () -> {
      try (Connection conn = connect(); Statement statement = conn.createStatement()) {
        new Timer(true).schedule(new TimerTask() {
          public void run() {
            try { statement.cancel(); } catch (SQLException error) { throw new IllegalStateException(error); }
          }
        }, 300);
        raises("57014", () -> statement.execute("SELECT pg_sleep(60)"));
        equal(one(conn, "SELECT 1"), "1");
      }
    });
    group("timeouts", () -> {
      try (Connection conn = connect("options", "-c statement_timeout=150"); Statement statement = conn.createStatement()) {
        raises("57014", () -> statement.execute("SELECT pg_sleep(60)"));
      }
      try (Connection conn = connect(); Statement statement = conn.createStatement()) {
        statement.setQueryTimeout(1);
        raises("57014", () -> statement.execute("SELECT pg_sleep(60)"));
        equal(one(conn, "SELECT 1"), "1");
      }
    });
    group("settings", () -> {
      try (Connection conn = connect("readOnlyMode", "always"); Connection other = connect()) {
        run(conn, "SET work_mem = '3MB'; SET search_path = pg_catalog; SET TimeZone = 'Europe/Paris'");
        equal(one(conn, "SHOW work_mem") + one(conn, "SHOW search_path"), "3MBpg_catalog");
        if (one(other, "SHOW search_path").equals("pg_catalog")) throw new AssertionError("leaked");
        conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        equal(one(conn, "SHOW transaction_isolation"), "serializable");
        equal(one(other, "SHOW transaction_isolation"), "read committed");
        conn.setReadOnly(true);
        raises("25006", () -> run(conn, "DELETE FROM public.pipelines WHERE name = 'nobody'"));
        run(conn, "DISCARD ALL");
        equal(one(conn, "SELECT current_setting('app.current_org_id')"), ORG);
      }
    });
    group("prepared", Jdbc::prepared);
    group("batch", Jdbc::batch);
    group("notices", () -> {
      try (Connection conn = connect(); Statement statement = conn.createStatement()) {
        statement.execute("DROP TABLE IF EXISTS pg_temp.nothing");
        if (!statement.getWarnings().getMessage().contains("does not exist")) throw new AssertionError(statement.getWarnings());
      }
    });
    group("errors", () -> {
      try (Connection conn = connect()) {
        PSQLException error = (PSQLException) raises("23514", () -> run(conn, "UPDATE pipelines SET status = 'odd'"));
        equal(error.getServerErrorMessage().getConstraint(), "pipelines_status_check");
        error = (PSQLException) raises("42703", () -> run(conn, "SELECT nme FROM pipelines"));
        equal(error.getServerErrorMessage().getPosition(), 8);
      }
    });
    group("temporary tables", () -> {
      try (Connection conn = connect()) {
        run(conn, "CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a");
        equal(one(conn, "SELECT count(*) FROM mine"), "10");
        run(conn, "DISCARD TEMP");
        raises("42P01", () -> run(conn, "SELECT * FROM mine"));
      }
    });
    System.exit(failed ? 1 : 0);
  }

  /** Every method of the metadata that asks the server: with names where it wants names, and with patterns where it takes them. */
  static void everything(DatabaseMetaData data) throws Exception {
    for (String table : new String[] {"runs", "%"}) {
      for (java.lang.reflect.Method method : DatabaseMetaData.class.getMethods()) {
        if (method.getParameterCount() > 0 && method.getReturnType() != ResultSet.class) continue;
        Object[] arguments = new Object[method.getParameterCount()];
        for (int at = 0; at < arguments.length; at++) {
          Class<?> type = method.getParameterTypes()[at];
          String before = at == 0 ? "" : method.getParameterTypes()[at - 1].getSimpleName();
          arguments[at] = type == int.class ? (Object) DatabaseMetaData.bestRowSession
              : type == boolean.class ? (Object) true
              : type != String.class || at == 0 ? null
              : arguments.length == 6 && at == 3 ? null
              : (arguments.length == 6 ? at % 3 : at) == 1 ? "public"
              : (arguments.length == 6 ? at % 3 : at) == 2 ? table
              : before.isEmpty() ? null : "%";
        }
        try {
          Object answer = method.invoke(data, arguments);
          if (answer instanceof ResultSet) {
            try (ResultSet rows = (ResultSet) answer) {
              while (rows.next()) { }
            }
          }
        } catch (java.lang.reflect.InvocationTargetException error) {
          if (!(error.getCause() instanceof SQLFeatureNotSupportedException)) throw new AssertionError(method.getName() + ": " + error.getCause());
        }
      }
    }
  }

  static void types() throws Exception {
    // The first uses are text, later ones binary.
    try (Connection conn = connect("prepareThreshold", "2"); PreparedStatement statement = conn.prepareStatement(
        "SELECT ?::int, ?::bigint, ?::numeric, ?::text, ?::bytea, ?::timestamptz, ?::uuid, ?::int[], ?::bool, ?::date, ?::text")) {
      UUID id = UUID.randomUUID();
      OffsetDateTime when = OffsetDateTime.of(2024, 2, 29, 12, 34, 56, 789000000, ZoneOffset.UTC);
      for (int round = 0; round < 6; round++) {
        statement.setInt(1, 7);
        statement.setLong(2, 1L << 40);
        statement.setBigDecimal(3, new BigDecimal("12345678901234567890.123"));
        statement.setString(4, "Grüße 'x' 世界");
        statement.setBytes(5, new byte[] {0, -1});
        statement.setObject(6, when);
        statement.setObject(7, id);
        statement.setArray(8, conn.createArrayOf("int4", new Integer[] {1, null}));
        statement.setBoolean(9, true);
        statement.setObject(10, LocalDate.of(2024, 2, 29));
        statement.setString(11, null);
        try (ResultSet row = statement.executeQuery()) {
          row.next();
          equal(row.getInt(1) + row.getLong(2), 7 + (1L << 40));
          equal(row.getBigDecimal(3), new BigDecimal("12345678901234567890.123"));
          equal(row.getString(4), "Grüße 'x' 世界");
          equal(Arrays.toString(row.getBytes(5)), "[0, -1]");
          equal(row.getObject(6, OffsetDateTime.class).toInstant(), when.toInstant());
          equal(row.getObject(7), id);
          equal(Arrays.toString((Object[]) row.getArray(8).getArray()), "[1, null]");
          equal(row.getBoolean(9), true);
          equal(row.getObject(10, LocalDate.class), LocalDate.of(2024, 2, 29));
          equal(row.getString(11), null);
        }
      }
    }
  }

  static void transactions() throws Exception {
    String name = unique("jdbc");
    try (Connection conn = connect()) {
      conn.setAutoCommit(false);
      run(conn, INSERT + "('" + ORG + "', '" + name + "', 'o', 's')");
      Savepoint savepoint = conn.setSavepoint("one");
      raises("22012", () -> run(conn, "SELECT 1 / 0"));
      raises("25P02", () -> run(conn, "SELECT 1"));
      conn.rollback(savepoint);
      equal(one(conn, "SELECT owner FROM pipelines WHERE name = '" + name + "'"), "o");
      conn.releaseSavepoint(savepoint);
      conn.rollback();
      equal(one(conn, "SELECT count(*) FROM pipelines WHERE name = '" + name + "'"), "0");
      conn.commit();
      conn.setReadOnly(true);
      raises("25006", () -> run(conn, "DELETE FROM pipelines WHERE name = 'nobody'"));
      conn.rollback();
    }
  }

  static void prepared() throws Exception {
    ExecutorService workers = Executors.newFixedThreadPool(CONNECTIONS);
    List<Future<Void>> all = new ArrayList<>();
    for (int worker = 0; worker < CONNECTIONS; worker++) {
      int number = worker;
      all.add(workers.submit(() -> {
        try (Connection conn = connect("prepareThreshold", "3");
            PreparedStatement statement = conn.prepareStatement("SELECT ?::int + " + number % 3);
            PreparedStatement read = conn.prepareStatement("SELECT count(*) FROM pipelines WHERE name = ?")) {
          for (int at = 0; at < TIMES / CONNECTIONS * 4; at++) {
            statement.setInt(1, at);
            try (ResultSet rows = statement.executeQuery()) {
              rows.next();
              equal(rows.getInt(1), at + number % 3);
            }
            read.setString(1, "nobody");
            read.executeQuery().close();
          }
          equal(statement.unwrap(PGStatement.class).isUseServerPrepare(), true);
        }
        return null;
      }));
    }
    for (Future<Void> one : all) one.get();
    workers.shutdown();
  }

  static void batch() throws Exception {
    for (String rewrite : List.of("false", "true")) {
      try (Connection conn = connect("reWriteBatchedInserts", rewrite)) {
        run(conn, "CREATE TEMPORARY TABLE many (a int PRIMARY KEY, b text)");
        try (PreparedStatement statement = conn.prepareStatement("INSERT INTO many VALUES (?, ?)")) {
          for (int at = 0; at < 1000; at++) {
            statement.setInt(1, at);
            statement.setString(2, "row " + at);
            statement.addBatch();
          }
          equal(statement.executeBatch().length, 1000);
          statement.setInt(1, 5000);
          statement.setString(2, "x");
          statement.addBatch();
          statement.setInt(1, 7);
          statement.addBatch();
          raises("23505", statement::executeBatch);
        }
        try (PreparedStatement statement = conn.prepareStatement("INSERT INTO many VALUES (?, 'k')", Statement.RETURN_GENERATED_KEYS)) {
          statement.setInt(1, 9999);
          statement.executeUpdate();
          equal(column(statement.getGeneratedKeys(), "a"), Set.of("9999"));
        }
        equal(one(conn, "SELECT count(*) > 1000 FROM many"), "t");
      }
    }
  }
}
