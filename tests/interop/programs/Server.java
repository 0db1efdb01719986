// A server on Java's JSSE: java Server.java PORT FOLDER PASSWORD FEATURE
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Server {
    static String folder, feature;

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[0]);
        folder = words[1];
        feature = words[3];
        if (feature.equals("KeyUpdate by the peer")) {
            Security.setProperty(
                    "jdk.tls.keyLimits", "AES/GCM/NoPadding KeyUpdate 2^20, ChaCha20-Poly1305 KeyUpdate 2^20");
        }
        if (feature.equals("HelloRetryRequest")) System.setProperty("jdk.tls.namedGroups", "secp384r1");
        SSLContext context = context("server.p12", words[2]);
        ServerSocket listener = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"));
        while (true) {
            Socket socket = listener.accept();
            new Thread(() -> serve(context, socket)).start();
        }
    }

    static SSLContext context(String file, String password) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(new FileInputStream(folder + "/" + file), password.toCharArray());
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(own, password.toCharArray());
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream pem = new FileInputStream(folder + "/ca.pem")) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static void serve(SSLContext context, Socket socket) {
        try (socket) {
            socket.setTcpNoDelay(true);
            SSLSocket tls = (SSLSocket)
                    context.getSocketFactory().createSocket(socket, new ByteArrayInputStream(new byte[0]), false);
            tls.setUseClientMode(false);
            tls.setNeedClientAuth(feature.contains("client certificate"));
            tls.setEnabledProtocols(new String[] {"TLSv1.2", "TLSv1.3"});
            if (feature.equals("small records")) {
                SSLParameters parameters = tls.getSSLParameters();
                parameters.setMaximumPacketSize(1024);
                tls.setSSLParameters(parameters);
            }
            answer(tls);
            if (!feature.equals("no close_notify")) tls.close();
        } catch (Exception error) {
            System.err.println(error);
        }
    }

    static void answer(SSLSocket tls) throws Exception {
        InputStream in = tls.getInputStream();
        ByteArrayOutputStream head = new ByteArrayOutputStream();
        while (!head.toString(StandardCharsets.ISO_8859_1).endsWith("\r\n\r\n")) {
            int one = in.read();
            if (one < 0) return;
            head.write(one);
        }
        String asked = head.toString(StandardCharsets.ISO_8859_1);
        String[] first = asked.split("\r\n")[0].split(" ");
        byte[] body = new byte[0];
        for (String line : asked.split("\r\n")) {
            if (line.toLowerCase().startsWith("content-length: ")) {
                body = in.readNBytes(Integer.parseInt(line.substring(16).trim()));
            }
        }
        byte[] said = first[0].equals("GET")
                ? Files.readAllBytes(Path.of(folder, "www", first[1].substring(first[1].lastIndexOf('/') + 1)))
                : (body.length + " "
                                + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body)))
                        .getBytes();
        OutputStream out = tls.getOutputStream();
        out.write(("HTTP/1.1 200 OK\r\nContent-Length: " + said.length + "\r\nConnection: close\r\n\r\n").getBytes());
        out.write(said);
        out.flush();
    }
}
